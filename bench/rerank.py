"""How fast cross-encoders of this process read pairs, and what callers at once gain by sharing.

The model has the size of the MiniLM cross-encoders (6 layers of 384, 22 million weights) and random
weights, which are as fast as trained ones. Each side reads the same queries with the same texts, in
torch (float32, bfloat16) and in ONNX Runtime (float32, int8); then from eight callers at once, each
waiting for its own answer, and from one after another.
"""

import argparse
import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.harness import Block, Defaults, Side, Work, stopwatch
from bench.harness.sides import Figures
from services.retrieve.adapters import RERANKERS
from services.retrieve.ports import Reranker
from services.retrieve.settings import RetrieveSettings
from services.runtime.registry import resolve
from tests.unit.retrieve.tiny_cross_encoder import make

SUMMARY = "cross-encoders in torch and ONNX Runtime, in pairs a second"
QUICK = ("--texts", "8", "--queries", "2", "--starts", "1", "--rounds", "2")
DEFAULTS = Defaults(starts=2, rounds=3)
MINILM: dict[str, Any] = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
    "vocab_size": 30_522,
}
WORDS = "the fox lives in a den and dogs in houses near the blue sea where rates rose".split()
BACKENDS = {
    "torch float32": ("cross-encoder", "float32"),
    "torch bfloat16": ("cross-encoder", "bfloat16"),
    "onnx float32": ("onnx", "float32"),
    "onnx int8": ("onnx", "int8"),
}
TOGETHER = "onnx float32, 8 callers"
CALLERS = 8
SHORT = 4
"""Texts of each of the callers."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--texts", type=int, default=32, help="of a query")
    parser.add_argument("--words", type=int, default=150, help="of a text, on average")
    parser.add_argument("--queries", type=int, default=4, help="of a block")
    parser.add_argument("--threads", type=int, default=0, help="of a pass; 0: as many as cores")


def sides(options: argparse.Namespace, folder: Path) -> Sequence[Side]:
    if not (folder / "minilm" / "config.json").is_file():
        make(folder / "minilm", **MINILM)
    given = {
        "folder": str(folder), "texts": options.texts, "words": options.words,
        "queries": options.queries, "threads": options.threads,
    }  # fmt: skip
    chosen = [
        Side(name, "bench.rerank:Reading", {**given, "backend": backend, "precision": precision})
        for name, (backend, precision) in BACKENDS.items()
    ]
    one = {**given, "backend": "onnx", "precision": "float32", "texts": SHORT}
    together = {**one, "queries": options.queries * CALLERS}
    chosen.append(Side("onnx float32, one by one", "bench.rerank:Reading", together))
    chosen.append(Side(TOGETHER, "bench.rerank:Reading", {**together, "callers": CALLERS}))
    return chosen


class Reading(Work):
    """One reranker that reads queries with their texts; a call is a pair."""

    async def prepare(self) -> Figures:
        folder = Path(self.options["folder"])
        settings = RetrieveSettings(
            data=folder / "data",
            reranker_backend=self.options["backend"],
            reranker_model=str(folder / "minilm"),
            reranker_precision=self.options["precision"],
            reranker_threads=self.options["threads"],
        )
        made = resolve(RERANKERS, settings.reranker_backend, "RERANKER_BACKEND")
        self._reranker: Reranker = made(settings)
        await self._reranker.start()
        await self._reranker.rerank("warm up", [self._text(random.Random(1))] * 4)
        return {}

    async def measure(self, round_: int) -> Block:
        chance = random.Random(self.seed + round_)
        asked = [
            (self._words(chance, 8), [self._text(chance) for _ in range(self.options["texts"])])
            for _ in range(self.options["queries"])
        ]
        seconds: list[float] = []
        tokens = 0
        limit = asyncio.Semaphore(self.options.get("callers", 1))

        async def read(query: str, texts: Sequence[str]) -> None:
            nonlocal tokens
            async with limit:
                with stopwatch(seconds):
                    scores = await self._reranker.rerank(query, texts)
            tokens += scores.tokens

        await asyncio.gather(*(read(query, texts) for query, texts in asked))
        pairs = sum(len(texts) for _, texts in asked)
        return Block(pairs, {"a query": seconds}, {"tokens_a_pair": tokens / pairs})

    async def aclose(self) -> None:
        await self._reranker.aclose()

    def _text(self, chance: random.Random) -> str:
        words = self.options["words"]
        return self._words(chance, chance.randint(words // 2, words * 3 // 2))

    @staticmethod
    def _words(chance: random.Random, count: int) -> str:
        return " ".join(chance.choices(WORDS, k=count))
