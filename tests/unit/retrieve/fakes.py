"""Doubles that hold state."""

import asyncio
import hashlib
import re
import threading
import time
from collections.abc import Sequence

import numpy as np

from services.retrieve.inprocess import InProcessModel, Tokens
from services.retrieve.ports import EncoderFacts, Matrix, RerankerFacts, Scores
from services.runtime.errors import Unavailable

DIMENSIONS = 32
CLS, SEP = 1, 2
VOCABULARY = 5000


class WordModel(InProcessModel):
    """An encoder of English words: a text is the sum of its words' random directions."""

    def __init__(self, *, version: str = "1", pause: float = 0.0) -> None:
        super().__init__()
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


class WordReranker:
    """A reranker of English: a text's score is the share of the query's words that it has."""

    def __init__(self, *, languages: tuple[str, ...] = ("en",), name: str = "word-overlap") -> None:
        self.languages = languages
        self.name = name
        self.calls: list[tuple[str, list[str]]] = []
        self.gate: asyncio.Event | None = None
        """Where set, nothing is answered before it is."""
        self.failure: Exception | None = None
        self.reading = asyncio.Event()
        self.cancelled = 0
        self.started = False

    @property
    def facts(self) -> RerankerFacts:
        if not self.started:
            raise Unavailable("RERANKER_LOADING", "The reranker is being loaded.")
        return RerankerFacts(self.name, "1", 512, self.languages, "tests")

    async def start(self) -> None:
        self.started = True

    async def aclose(self) -> None:
        self.started = False

    async def rerank(self, query: str, texts: Sequence[str]) -> Scores:
        self.calls.append((query, list(texts)))
        self.reading.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        words = _words(query)
        values = [len(words & _words(text)) / len(words) for text in texts]
        return Scores(tuple(values), sum(len(_words(text)) for text in texts))


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
