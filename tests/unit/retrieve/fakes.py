"""Doubles that hold state."""

import hashlib
import re
import threading
import time
from collections.abc import Sequence

import numpy as np

from services.retrieve.ports import EncoderFacts, Matrix, Tokens

DIMENSIONS = 32
CLS, SEP = 1, 2
VOCABULARY = 5000


class WordModel:
    """An encoder of English words: a text is the sum of its words' random directions."""

    def __init__(self, *, version: str = "1", pause: float = 0.0) -> None:
        self.version = version
        self.pause = pause
        self.batches: list[list[tuple[int, ...]]] = []
        self.threads: set[str] = set()

    def load(self) -> EncoderFacts:
        return EncoderFacts(
            name="words", version=self.version, dimensions=DIMENSIONS, max_tokens=64,
            special_tokens=2, vocabulary=VOCABULARY, languages=("en",), tokenizer=b"{}" * 50_000,
            tokenizer_id=hashlib.sha256(b"{}" * 50_000).hexdigest(), owned_by="tests",
        )  # fmt: skip

    def tokenize(self, texts: Sequence[str], *, query: bool, truncate: bool) -> list[Tokens]:
        return [self._tokens(text, truncate) for text in texts]

    def _tokens(self, text: str, truncate: bool) -> Tokens:
        words = re.findall(r"\w+", text.lower())
        ids = [3 + int(hashlib.sha256(word.encode()).hexdigest(), 16) % 4000 for word in words]
        known = [word.isascii() for word in words]
        if truncate:
            ids = ids[:62]
        return Tokens((CLS, *ids, SEP), 1 - sum(known) / len(known) if known else 0.0)

    def wrap(self, ids: Sequence[int]) -> tuple[int, ...]:
        return (CLS, *ids, SEP)

    def forward(self, batch: Sequence[Sequence[int]]) -> Matrix:
        self.threads.add(threading.current_thread().name)
        self.batches.append([tuple(ids) for ids in batch])
        time.sleep(self.pause)
        rows = []
        for ids in batch:
            row = sum(np.random.default_rng(one).standard_normal(DIMENSIONS) for one in ids[1:-1])
            rows.append(row + np.full(DIMENSIONS, 1e-6))
        matrix = np.array(rows, dtype=np.float32)
        unit: Matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        return unit
