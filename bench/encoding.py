"""How fast encoders of this process make vectors of passages, and how near these are to torch's.

Each side encodes the packaged model's passages of the same made-up words, through the service's own
batching, with one thread or two. What a precision costs in retrieval is an evaluation:
``EMBEDDING_BACKEND`` and ``RAGMESH_EMBEDDING_PRECISION`` with ``python -m bench.eval``.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.harness import Block, Defaults, Side, Work, stopwatch
from bench.harness.sides import Figures
from services.retrieve.adapters import ENCODERS
from services.retrieve.adapters.sentence_transformers import Model
from services.retrieve.encoding import Encoder
from services.retrieve.settings import RetrieveSettings
from services.runtime.registry import resolve

SUMMARY = "encoders in torch, ONNX Runtime and OpenVINO, in passages a second"
QUICK = ("--passages", "16", "--threads", "2", "--starts", "1", "--rounds", "2")
DEFAULTS = Defaults(starts=2, rounds=3)
BACKENDS = (
    ("sentence-transformers", "float32"),
    ("sentence-transformers", "bfloat16"),
    ("onnx", "float32"),
    ("onnx", "int8"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
)
WORDS = "the flow of heat over a wing is given by the boundary layer at high speed and low".split()
REFERENCE = "reference.npy"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--passages", type=int, default=64, help="of a block")
    parser.add_argument("--words", type=int, default=170, help="of a passage, on average")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of a pass")


def sides(options: argparse.Namespace, folder: Path) -> Sequence[Side]:
    given = {"folder": str(folder), "passages": options.passages, "words": options.words}
    exact = Model(precision="float32", data=folder)
    exact.load()
    texts = passages(random.Random(0), options.words, 32)
    ids = [one.ids for one in exact.tokenize(texts, query=False, truncate=True)]
    np.save(folder / REFERENCE, exact.forward(ids))
    return [
        Side(
            f"{backend} {precision}, {threads}",
            "bench.encoding:Encoding",
            {**given, "backend": backend, "precision": precision, "threads": threads},
        )
        for threads in options.threads
        for backend, precision in BACKENDS
    ]


class Encoding(Work):
    """One encoder; a call is a passage."""

    async def prepare(self) -> Figures:
        folder = Path(self.options["folder"])
        settings = RetrieveSettings(
            data=folder,
            embedding_backend=self.options["backend"],
            embedding_precision=self.options["precision"],
            embedding_threads=self.options["threads"],
        )
        made = resolve(ENCODERS, settings.embedding_backend, "EMBEDDING_BACKEND")
        self._encoder = Encoder(
            made.from_settings(settings), batch_tokens=2048, queue=4096, query_cache=0
        )
        await self._encoder.start()
        texts = passages(random.Random(0), self.options["words"], 32)
        encoded = await self._encoder.encode(await self._encoder.prepare(texts))
        cosines = (encoded.vectors * np.load(folder / REFERENCE)).sum(axis=1)
        return {"cosine_mean": float(cosines.mean()), "cosine_min": float(cosines.min())}

    async def measure(self, round_: int) -> Block:
        chance = random.Random(self.seed + round_)
        texts = passages(chance, self.options["words"], self.options["passages"])
        seconds: list[float] = []
        with stopwatch(seconds):
            encoded = await self._encoder.encode(await self._encoder.prepare(texts))
        return Block(len(texts), {"a block": seconds}, {"tokens": encoded.tokens / len(texts)})

    async def aclose(self) -> None:
        await self._encoder.aclose()


def passages(chance: random.Random, words: int, count: int) -> list[str]:
    """Made-up texts of half to one and a half times so many words."""
    lengths = [chance.randint(words // 2, words * 3 // 2) for _ in range(count)]
    return [" ".join(chance.choices(WORDS, k=length)) for length in lengths]
