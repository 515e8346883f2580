"""Many tenants with a small collection each: creation, memory, descriptors, and opening again.

A real service process with the quick encoder. Starting makes the tenants; a block searches
collections that nobody has used for long and that are therefore closed, each once. Memory and
descriptors of all the service's processes are looked at ten times on the way.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import mkdtemp

from bench import inside
from bench.corpus import Corpus
from bench.harness import Block, Defaults, Finding, Run, Side, Work, stopwatch
from bench.harness.sides import Figures
from bench.harness.statistics import percentile
from bench.harness.usage import OWN, settle, snapshot
from bench.process import Service, metadata
from bench.writer import request
from ragmesh.retrieve.v1 import retrieve_pb2 as pb

SUMMARY = "N tenants with one small collection each: memory, descriptors, opening a closed one"
QUICK = ("--tenants", "120", "--searches", "20", "--starts", "1", "--rounds", "2")
DEFAULTS = Defaults(starts=1, rounds=5)
SIDE = "ragmesh"
FIRST, AGAIN = "first search on a closed one", "search again"
IN_FLIGHT = 4
LOOKS = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tenants", type=int, default=1_000)
    parser.add_argument("--chunks", type=int, default=5, help="of each, at most 20")
    parser.add_argument("--searches", type=int, default=100, help="of a block")
    parser.add_argument("--open-shards", type=int, default=64, help="the service's setting")


def sides(options: argparse.Namespace, folder: Path) -> Sequence[Side]:
    plain = {
        "folder": str(folder),
        "tenants": options.tenants,
        "chunks": min(20, options.chunks),
        "searches": options.searches,
        "rounds": options.rounds,
        "open_shards": options.open_shards,
    }
    return [Side(SIDE, "bench.tenants:Tenants", plain)]


def findings(run: Run, options: argparse.Namespace) -> Sequence[Finding]:
    first = run.summary(SIDE, FIRST)
    return [
        Finding("first search on a closed collection, p99", first.p99 * 1000, "ms", below=200),
        Finding("memory at the end / half way", run.figure(SIDE, "rss_growth"), below=1.25),
        Finding(
            "descriptors at the end / half way", run.figure(SIDE, "descriptor_growth"), below=1.1
        ),
    ]


class Tenants(Work):
    """One service with many tenants."""

    async def prepare(self) -> Figures:
        tenants, chunks = int(self.options["tenants"]), int(self.options["chunks"])
        self._corpus = Corpus(self.seed, chunks=max(2_000, tenants))
        self._service = Service(
            Path(mkdtemp(dir=self.options["folder"])),
            embedding_model=f"{self.seed},{self._corpus.chunks},64",
            open_shards=str(self.options["open_shards"]),
        )
        await self._service.start()
        frames = [
            request(one) async for one in inside.frames(self._corpus.pieces(0, chunks), chunks)
        ]
        seconds: list[float] = []
        looks: list[tuple[float, float]] = []
        started = time.perf_counter()
        for look in range(LOOKS):
            numbers = iter(range(look * tenants // LOOKS, (look + 1) * tenants // LOOKS))
            await asyncio.gather(*(self._make(numbers, frames, seconds) for _ in range(IN_FLIGHT)))
            used = snapshot()
            memory = sum(mb for name, mb in used.rss_mb.items() if name != OWN)
            looks.append((memory, float(used.descriptors)))
        whole = time.perf_counter() - started
        half = looks[LOOKS // 2 - 1]
        await settle()
        return {
            "tenants_per_s": tenants / whole,
            "make_p50_ms": percentile(seconds, 50) * 1000,
            "make_p99_ms": percentile(seconds, 99) * 1000,
            **{f"rss_mb at {(n + 1) * 10}%": mb for n, (mb, _) in enumerate(looks)},
            **{f"descriptors at {(n + 1) * 10}%": fds for n, (_, fds) in enumerate(looks)},
            "rss_growth": looks[-1][0] / half[0],
            "descriptor_growth": looks[-1][1] / half[1],
            "disk_mb a tenant": inside.disk_mb(Path(self._service.data)) / tenants,
        }

    async def measure(self, round_: int) -> Block:
        # The last ones that were made or searched are open; the others are not.
        tenants, searches = int(self.options["tenants"]), int(self.options["searches"])
        closed = tenants - int(self.options["open_shards"]) - 1
        dice = random.Random(self.seed)
        order = dice.sample(range(closed), closed) if closed > 0 else []
        chosen = order[round_ * searches : (round_ + 1) * searches]
        assert chosen, "too few tenants: all are open, or all were searched"
        first: list[float] = []
        again: list[float] = []
        questions = self._corpus.questions(2)
        for number in chosen:
            for seconds in (first, again):
                with stopwatch(seconds):
                    answer = await self._service.retrieve.Search(
                        pb.SearchRequest(
                            collection=inside.COLLECTION, query=questions[0].text, top_k=10
                        ),
                        metadata=metadata(f"tenant {number}"),
                    )
                assert answer.hits
        return Block(len(first) + len(again), {FIRST: first, AGAIN: again})

    async def aclose(self) -> None:
        if hasattr(self, "_service"):
            await self._service.aclose()

    async def _make(
        self, numbers: Iterator[int], frames: Sequence[pb.IndexDocumentsRequest],
        seconds: list[float],
    ) -> None:  # fmt: skip
        header = pb.IndexDocumentsRequest(header=pb.IndexHeader(collection=inside.COLLECTION))
        for number in numbers:
            whose = metadata(f"tenant {number}")
            with stopwatch(seconds):
                await self._service.retrieve.CreateCollection(
                    pb.CreateCollectionRequest(name=inside.COLLECTION), metadata=whose
                )
                async for _ in self._service.retrieve.IndexDocuments(
                    iter([header, *frames]), metadata=whose
                ):
                    pass
