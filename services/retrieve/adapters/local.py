"""What encoders in this process share: the tokenizer, the prompts, and what they say of themselves.

A runtime adds `open` and `forward`.
"""

import hashlib
import logging
import os
import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from services.retrieve.adapters.model_folder import ModelFolder, Prompts, unreadable
from services.retrieve.inprocess import InProcessModel, Tokens
from services.retrieve.ports import EncoderFacts, Matrix
from services.retrieve.settings import RetrieveSettings

log = logging.getLogger(__name__)

Ids = NDArray[np.int64]
"""Shape (inputs, tokens)."""

_MAX_THREADS = 4
_UNKNOWN = ("[UNK]", "<unk>")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_WIDTH = 8
"""Rows are padded to a multiple of it: runtimes keep what they prepared for a shape."""


class LocalModel(InProcessModel):
    """A sentence-transformers model in this process."""

    backend: str
    """Its name in settings."""

    def __init__(
        self,
        model: str = "",
        *,
        languages: tuple[str, ...] = (),
        prompts: Prompts = Prompts(),  # noqa: B008  frozen
        device: str = "cpu",
        precision: str = "auto",
        threads: int = 0,
        data: Path = Path("var"),
    ) -> None:
        """Args:
        model: a folder or a hub id; empty for the packaged one.
        languages: that it represents; empty for what its model card says.
        prompts: in place of the model's own.
        device: as torch names it.
        precision: auto, float32, bfloat16 or int8.
        threads: of a forward pass on a CPU; 0 for as many as cores, at most 4.
        data: where exported graphs are kept.
        """
        super().__init__()
        self._name = model
        self._languages = languages
        self._own_prompts = prompts
        self._device = device
        self._precision = precision
        self._threads = threads or min(len(os.sched_getaffinity(0)), _MAX_THREADS)
        self._data = data

    @classmethod
    def from_settings(cls, settings: RetrieveSettings) -> "LocalModel":
        return cls(
            settings.embedding_model,
            languages=settings.embedding_languages,
            prompts=Prompts(settings.embedding_query_prompt, settings.embedding_passage_prompt),
            device=settings.embedding_device,
            precision=settings.embedding_precision,
            threads=settings.embedding_threads,
            data=settings.data,
        )

    @abstractmethod
    def open(self, folder: ModelFolder) -> str:
        """Make `forward` work; returns the precision that it computes in."""

    def load(self) -> EncoderFacts:
        folder = ModelFolder.locate(self._name)
        try:
            self._exact = Tokenizer.from_str(folder.tokenizer_json.decode())
        except Exception as error:  # the library raises a bare one for a malformed file
            raise unreadable(folder.name) from error
        self._exact.no_truncation()
        self._exact.no_padding()
        self._truncating = Tokenizer.from_str(self._exact.to_str())
        self._truncating.enable_truncation(folder.max_tokens)
        self._max_tokens = folder.max_tokens
        self._find_specials()
        self._pad = folder.pad_id
        self._query_prompt, self._passage_prompt = folder.prompts(self._own_prompts)
        precision = self.open(folder)
        probe = self.forward([self._exact.encode("a").ids])
        return EncoderFacts(
            name=folder.name,
            version=self._version(folder, precision),
            dimensions=probe.shape[1],
            max_tokens=folder.max_tokens,
            special_tokens=len(self._before) + len(self._after),
            vocabulary=self._exact.get_vocab_size(),
            languages=self._languages or folder.languages,
            tokenizer=folder.tokenizer_json,
            tokenizer_id=hashlib.sha256(folder.tokenizer_json).hexdigest(),
            owned_by=folder.owner,
            precision=precision,
            backend=self.backend,
            normalizes="Normalize" in folder.modules,
            revision=f"{type(self).__module__} {precision} {self._query_prompt}",
        )

    def tokenize(self, texts: Sequence[str], *, query: bool, truncate: bool) -> list[Tokens]:
        prompt = self._query_prompt if query else self._passage_prompt
        tokenizer = self._truncating if truncate else self._exact
        encodings = tokenizer.encode_batch_fast([prompt + text for text in texts])
        return [Tokens(tuple(one.ids), self._unknown_share(one.ids)) for one in encodings]

    def wrap(self, ids: Sequence[int]) -> tuple[int, ...]:
        begins = tuple(ids[: len(self._before)]) == self._before
        ends = not self._after or tuple(ids[-len(self._after) :]) == self._after
        return tuple(ids) if begins and ends else (*self._before, *ids, *self._after)

    def padded(self, batch: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
        """Token ids and attention mask."""
        width = max(len(ids) for ids in batch)
        width = max(width, min(width + -width % _WIDTH, self._max_tokens))
        ids = np.full((len(batch), width), self._pad, dtype=np.int64)
        mask = np.zeros((len(batch), width), dtype=np.int64)
        for row, one in enumerate(batch):
            ids[row, : len(one)] = one
            mask[row, : len(one)] = 1
        return ids, mask

    def _version(self, folder: ModelFolder, precision: str) -> str:
        version = folder.version(self._own_prompts.passage)
        return f"{version}-int8" if precision == "int8" else version

    def _find_specials(self) -> None:
        """Learn which tokens the tokenizer puts around a text."""
        encoding = self._exact.encode("a")
        mask = encoding.special_tokens_mask
        first, last = mask.index(0), len(mask) - mask[::-1].index(0)
        self._before = tuple(encoding.ids[:first])
        self._after = tuple(encoding.ids[last:])
        vocabulary = self._exact.get_vocab()
        self._unknown = {vocabulary[token] for token in _UNKNOWN if token in vocabulary} | {
            number for token, number in vocabulary.items() if _BYTE.fullmatch(token)
        }

    def _unknown_share(self, ids: Sequence[int]) -> float:
        content = len(ids) - len(self._before) - len(self._after)
        return sum(one in self._unknown for one in ids) / content if content > 0 else 0.0


def normalized(vectors: Matrix) -> Matrix:
    """Rows of length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    rows: Matrix = vectors / np.maximum(lengths, 1e-12)
    return rows.astype(np.float32, copy=False)
