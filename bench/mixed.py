"""Searching while documents are indexed and optimised in the same collection.

A real service process. A block first searches at a steady pace while nothing else goes on, then
does the same while another process, whose text is made by then, indexes --added chunks, and until
the background work after it (merging, optimising, calibrating) is over. gRPC health is asked all
the time, by a process of its own, so that an answer waits for nothing of the bench's. `real
encoder` (--real) does it with the packaged model and fewer chunks, by an encoder that takes the
processors.

What a stall of the whole machine delayed is left out of the times, and counted (`bench.stalls`).
"""

import argparse
import asyncio
import itertools
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from bench import inside
from bench.corpus import Corpus
from bench.harness import Block, Defaults, Finding, Run, Side, Work
from bench.harness.sides import Figures
from bench.harness.statistics import percentile
from bench.harness.usage import settle, snapshot, spent
from bench.process import ROOT, Service, metadata
from bench.stalls import Timed, untroubled
from bench.word_vectors import NAME
from ragmesh.retrieve.v1 import retrieve_pb2 as pb

SUMMARY = "search and health latency while chunks are indexed and optimised, beside idle"
QUICK = ("--base", "2000", "--added", "2000", "--idle", "3", "--starts", "1", "--rounds", "1")
DEFAULTS = Defaults(starts=2, rounds=1)
QUICK_ENCODER, REAL_ENCODER = "quick encoder", "real encoder"
IDLE, BUSY = "search, idle", "search while indexing"
HEALTH_IDLE, HEALTH_BUSY = "health, idle", "health while indexing"
QUESTIONS = 2_000
_REST_SECONDS = 2.0
_REST_LIMIT = 900.0
_MERGING = "ragmesh_retrieve_merging"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=int, default=20_000, help="chunks that are there already")
    parser.add_argument("--added", type=int, default=20_000, help="chunks of a block; by twenties")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds of searching before")
    parser.add_argument("--pace", type=float, default=10.0, help="milliseconds between searches")
    parser.add_argument("--real", action="store_true", help="also with the packaged encoder")
    parser.add_argument("--real-base", type=int, default=500)
    parser.add_argument("--real-added", type=int, default=500)


def sides(options: argparse.Namespace, folder: Path) -> Sequence[Side]:
    sizes = [(QUICK_ENCODER, NAME, options.base, options.added)]
    if options.real:
        real = "sentence-transformers"
        sizes.append((REAL_ENCODER, real, options.real_base, options.real_added))
    return [
        Side(
            name,
            "bench.mixed:Mixed",
            {
                "folder": str(folder),
                "encoder": encoder,
                "base": base,
                "added": added,
                "rounds": options.rounds,
                "idle": options.idle,
                "pace": options.pace / 1000,
            },
        )
        for name, encoder, base, added in sizes
    ]


def findings(run: Run, options: argparse.Namespace) -> Sequence[Finding]:
    found = []
    for side in run.sides:
        found += [
            Finding(f"{side}: p99 while indexing / idle", run.figure(side, "p99_ratio"), below=5),
            Finding(
                f"{side}: slowest health answer",
                run.summary(side, HEALTH_BUSY).most * 1000, "ms", below=50,
            ),
        ]  # fmt: skip
    return found


@dataclass(slots=True)
class _Phase:
    """What was timed while nothing else, or much else, went on."""

    searches: list[Timed] = field(default_factory=list)
    health: list[Timed] = field(default_factory=list)
    stalls: list[Timed] = field(default_factory=list)

    def untroubled(self) -> tuple[list[float], list[float]]:
        """Seconds of searches and health answers."""
        return untroubled(self.searches, self.stalls), untroubled(self.health, self.stalls)


class Mixed(Work):
    """One service, searched and written to."""

    async def prepare(self) -> Figures:
        base, added = int(self.options["base"]), int(self.options["added"])
        self._chunks = base + added * int(self.options["rounds"])
        self._corpus = Corpus(self.seed, chunks=self._chunks)
        texts = [one.text for one in self._corpus.questions(QUESTIONS)]
        self._questions = itertools.cycle(texts)
        encoder = str(self.options["encoder"])
        settings = {"embedding_backend": encoder, "query_cache": "1000000"}
        if encoder == NAME:
            settings["embedding_model"] = f"{self.seed},{self._chunks}"
        self._service = Service(Path(mkdtemp(dir=self.options["folder"])), **settings)
        await self._service.start()
        write = await self._writer(0, base)
        started = time.perf_counter()
        await write()
        seconds = time.perf_counter() - started
        for text in texts:  # what is measured is a search whose embedding is cached
            await self._search(text)
        return {"base_chunks_per_s": base / seconds, "settle_s": await settle()}

    async def measure(self, round_: int) -> Block:
        added = int(self.options["added"])
        write = await self._writer(int(self.options["base"]) + round_ * added, added)
        idle, busy = _Phase(), _Phase()
        async with self._watched(idle):
            end = time.monotonic() + float(self.options["idle"])
            await self._searches(idle.searches, lambda: time.monotonic() > end)
        async with self._watched(busy):
            started = time.perf_counter()
            writing = asyncio.create_task(write())
            over = asyncio.create_task(self._over(writing))
            searching = asyncio.create_task(self._searches(busy.searches, over.done))
            await writing
            indexed = time.perf_counter() - started
            await over
            await searching
            after = time.perf_counter() - started - indexed
        searched_idle, health_idle = idle.untroubled()
        searched_busy, health_busy = busy.untroubled()
        timed = len(idle.searches) + len(busy.searches)
        return Block(
            timed,
            {
                IDLE: searched_idle,
                BUSY: searched_busy,
                HEALTH_IDLE: health_idle,
                HEALTH_BUSY: health_busy,
            },
            {
                "p99_ratio": percentile(searched_busy, 99) / percentile(searched_idle, 99),
                "p50_ratio": percentile(searched_busy, 50) / percentile(searched_idle, 50),
                "chunks_per_s": added / indexed,
                "after_s": after,
                "stalls of the machine_ms": 1000
                * sum(seconds for _, seconds in (*idle.stalls, *busy.stalls)),
                "searches left out": timed - len(searched_idle) - len(searched_busy),
            },
        )

    async def aclose(self) -> None:
        if hasattr(self, "_service"):
            await self._service.aclose()

    async def _searches(self, timed: list[Timed], over: Callable[[], bool]) -> None:
        """Search at a steady pace; a slow answer delays nobody, it is in the figures."""
        pace = float(self.options["pace"])
        asked: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while not over():
            task = asyncio.create_task(self._timed(timed))
            asked.add(task)
            task.add_done_callback(asked.discard)
            due += pace
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*asked)

    async def _timed(self, timed: list[Timed]) -> None:
        began = time.monotonic()
        await self._search(next(self._questions))
        timed.append((began, time.monotonic() - began))

    async def _search(self, text: str) -> None:
        request = pb.SearchRequest(
            collection=inside.COLLECTION,
            query=text,
            top_k=10,
            weights=pb.ArmWeights(dense=0.5, sparse=0.5),
        )
        answer = await self._service.retrieve.Search(request, metadata=metadata())
        assert answer.hits

    @asynccontextmanager
    async def _watched(self, phase: _Phase) -> AsyncIterator[None]:
        """Ask for health and look out for stalls; how that went is there afterwards."""
        prober = await _helper("bench.probe", self._service.address)
        watcher = await _helper("bench.stalls")
        try:
            yield
        finally:
            phase.health += json.loads(await _end(prober))
            phase.stalls += json.loads(await _end(watcher))

    async def _writer(self, start: int, count: int) -> Callable[[], Coroutine[None, None, bytes]]:
        """A function that indexes chunks; their text is made."""
        writer = await _helper(
            "bench.writer", self._service.address, self.seed, self._chunks, start, count
        )
        return partial(_end, writer)

    async def _over(self, writing: "asyncio.Task[bytes]") -> None:
        """Return when the writing is done and no merge runs; the searches go on meanwhile."""
        await writing
        end = time.monotonic() + _REST_LIMIT
        quiet = 0
        while quiet < 2 and time.monotonic() < end:
            before = snapshot()
            await asyncio.sleep(_REST_SECONDS)
            merging = await asyncio.to_thread(self._service.metric, _MERGING)
            ended = spent(before, snapshot()).cpu_s.get("edge.merge", 0.0)
            quiet = 0 if merging or ended else quiet + 1


async def _helper(module: str, *arguments: object) -> Process:
    """A process that is ready; it does something when, or until, its standard input ends."""
    helper = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *map(str, arguments), cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    assert helper.stdout is not None
    assert await helper.stdout.readline() == b"ready\n", f"{module} failed"
    return helper


async def _end(helper: Process) -> bytes:
    """Close a process' standard input; returns what it says until it ends."""
    said, _ = await helper.communicate(b"")
    assert helper.returncode == 0, "a helper of the bench failed"
    return said
