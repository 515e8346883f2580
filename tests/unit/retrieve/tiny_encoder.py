"""A sentence-transformers model made on the spot, with the prompts of E5 or Ruri."""

import json
from pathlib import Path

from tests.unit.retrieve.tiny_cross_encoder import make as make_bert

E5 = {"query": "query: ", "passage": "passage: "}
RURI = {"query": "検索クエリ: ", "document": "検索文書: "}


def make(
    folder: Path,
    *,
    prompts: dict[str, str] | None = None,
    pooling: str = "mean",
    languages: str = "",
) -> Path:
    """A folder as the hub has them.

    Args:
        folder: where to.
        prompts: as ``config_sentence_transformers.json`` has them.
        pooling: cls, max, mean ...
        languages: the card's front matter.
    """
    make_bert(folder, languages=languages)
    modules = ("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")
    _write(
        folder / "modules.json",
        [
            {
                "idx": at,
                "name": str(at),
                "path": path,
                "type": f"sentence_transformers.models.{kind}",
            }
            for at, (path, kind) in enumerate(modules)
        ],
    )
    _write(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 32, f"pooling_mode_{_LEGACY[pooling]}": True}
        | {f"pooling_mode_{name}": False for key, name in _LEGACY.items() if key != pooling},
    )
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"prompts": prompts or {}})
    return folder


_LEGACY = {
    "cls": "cls_token",
    "lasttoken": "lasttoken",
    "max": "max_tokens",
    "mean": "mean_tokens",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
}


def _write(file: Path, content: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
