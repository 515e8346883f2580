"""When collections are merged, and the process that does it.

Runs grow geometrically, as in a log-structured merge tree (O'Neil et al., "The Log-Structured
Merge-Tree", Acta Informatica 1996): a run is merged with its elder unless that is so many times
larger. So a chunk is rewritten a logarithmic number of times, and a search looks into few runs.
"""

import json
import logging
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import partial

from services.retrieve.adapters.edge.files import used_bytes
from services.retrieve.adapters.edge.layout import Run, new_name, read, sweep
from services.retrieve.adapters.edge.merge import NICE, Job, Outcome
from services.retrieve.adapters.edge.shards import Shard
from services.retrieve.adapters.points import Wait, wait_here

log = logging.getLogger(__name__)

_MODULE = "services.retrieve.adapters.edge.merge"
GROWTH = 3
"""A run that is at most so many times larger than those after it is merged with them."""
REST_SECONDS = 5.0
"""After so long without a write a collection rests. A search asks each of its parts, so there is a
point in having few of them; while it grows, merging more would cost more than it gives."""
REST_GROWTH, MOST_GROWTH = 2.0, 100.0
"""By so much `GROWTH` grows with each second of rest, and how far: what is written once an hour may
be merged with something large, what is written every minute may not."""
REST_POINTS = 1000
"""Of a delta that then becomes a run, where there are runs."""
DEAD_SHARE, DEAD_POINTS = 0.3, 1000
"""A run is written anew when so much of it, and so many points, were deleted."""
SPACE = 3
"""Times the size of the runs that a merge may take on disk: copies, then the new run twice."""
SPARE_BYTES = 128 * 1024 * 1024
PAUSE_SECONDS = 60.0
"""After a merge that failed, or that had no space."""


@dataclass(frozen=True, slots=True)
class Merging:
    """How collections are merged."""

    points: int = 10_000
    """Chunks that are searched without an index before they become a run."""
    threads: int = 1
    """That build the index of a run."""


@dataclass(slots=True)
class Counts:
    """What was done so far."""

    merges: int = 0
    points: int = 0
    seconds: float = 0.0
    failed: int = 0
    no_space: int = 0


@dataclass(slots=True)
class _Running:
    """A merge on its way."""

    folder: str
    shard: Shard
    runs: tuple[str, ...]
    target: str
    process: subprocess.Popen[bytes]
    held: ExitStack
    """Keeps the shard open."""
    output: bytes = b""
    ended: threading.Event = field(default_factory=threading.Event)


class Merger:
    """Merges the runs of one collection at a time, in a process of its own.

    Belongs to the thread that works on the shards: `tend` is called there, between calls.
    """

    def __init__(
        self, options: Merging, *, wait: Wait = wait_here, wake: Callable[[], None] = lambda: None
    ) -> None:
        """Args:
        options: how.
        wait: has the caller wait for something.
        wake: called from another thread when `tend` has something to do.
        """
        self._options = options
        self._wait = wait
        self._wake = wake
        self._due: dict[str, Shard] = {}
        self._ragged: dict[str, Shard] = {}
        """Collections that are to be merged when they rest."""
        self._running: _Running | None = None
        self._not_before = 0.0
        self.counts = Counts()

    @property
    def busy(self) -> bool:
        """Whether a merge is running."""
        return self._running is not None

    @property
    def process_id(self) -> int | None:
        """Of the running merge."""
        return self._running.process.pid if self._running else None

    def notice(self, folder: str, shard: Shard) -> None:
        """Look at a collection; it is merged later, when that is due."""
        if folder in self._due:
            return
        if self._has_grown(shard) or shard.dead >= DEAD_POINTS or choose(_facts(shard)):
            self._due[folder] = shard
        elif _is_ragged(shard):
            self._ragged[folder] = shard

    def leave(self, folder: str) -> None:
        """Let go of a collection. A merge of it ends without an effect."""
        self._due.pop(folder, None)
        self._ragged.pop(folder, None)
        if self._running is not None and self._running.folder == folder:
            running = self._running
            running.process.kill()
            running.ended.wait()
            self._release(running)
            self._clear(running)

    @property
    def pause(self) -> float | None:
        """Seconds until `tend` may have something to do; None until a collection is looked at."""
        if self._running is not None or not self._ragged:
            return None
        due = min(shard.written + _rest_needed(shard) for shard in self._ragged.values())
        if math.isinf(due):
            return None
        return max(max(due, self._not_before) - time.monotonic(), 0.0)

    def tend(self) -> None:
        """Finish a merge that has ended, and begin one that is due."""
        if self._running is not None:
            if not self._running.ended.is_set():
                return
            self._finish(self._running)
        if time.monotonic() < self._not_before:
            return
        if self._due:
            folder, shard = next(iter(self._due.items()))
            del self._due[folder]
            self._try(folder, shard, GROWTH)
        elif rested := self._rested():
            shard = self._ragged.pop(rested)
            self._try(rested, shard, _growth(shard))

    def _rested(self) -> str | None:
        """A collection that has not been written to for long enough."""
        now = time.monotonic()
        found = (
            folder
            for folder, shard in self._ragged.items()
            if shard.written + _rest_needed(shard) <= now
        )
        return next(found, None)

    def _try(self, folder: str, shard: Shard, growth: float) -> None:
        try:
            self._begin(folder, shard, growth)
        except Exception:  # whatever it is, it must not end the engine: searches go on
            log.warning("a merge cannot begin", exc_info=True)
            self._failed()

    def _has_grown(self, shard: Shard) -> bool:
        return shard.delta.statistics >= self._options.points

    def _begin(self, folder: str, shard: Shard, growth: float) -> None:
        if not self._has_space(shard):
            return
        shard.dead = 0
        if self._has_grown(shard) or (growth > GROWTH and _has_rest(shard)):
            shard.freeze()
        names = choose(_facts(shard), growth) or _mostly_dead(shard)
        if not names:
            return
        target = new_name()
        job = Job(
            str(shard.path), names, target, shard.dimensions, self._options.threads, os.getpid()
        )
        process = subprocess.Popen(
            [sys.executable, "-m", _MODULE, json.dumps(asdict(job))],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        # From here on, not once it has read its modules: that is half a second of a processor.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        held = ExitStack()
        held.enter_context(shard.pin())
        shard.deleting = []
        self._running = _Running(folder, shard, names, target, process, held)
        threading.Thread(target=self._follow, args=(self._running,), daemon=True).start()

    def _has_space(self, shard: Shard) -> bool:
        needed = SPACE * used_bytes(shard.path) + SPARE_BYTES
        free = shutil.disk_usage(shard.path).free
        if free >= needed:
            return True
        self.counts.no_space += 1
        self._not_before = time.monotonic() + PAUSE_SECONDS
        log.warning(
            "no space to merge a collection; it is searched as it is, and more slowly",
            extra={"needed_bytes": needed, "free_bytes": free},
        )
        return False

    def _follow(self, running: _Running) -> None:
        """Wait for the process, in a thread of its own."""
        assert running.process.stdout is not None  # noqa: S101
        with running.process.stdout as output:
            running.output = output.read()
        running.process.wait()
        running.ended.set()
        self._wake()

    def _finish(self, running: _Running) -> None:
        try:
            if running.process.returncode:
                raise ValueError(f"the process ended with {running.process.returncode}")
            outcome = Outcome(**json.loads(running.output))
            made = Run(running.target, outcome.points, outcome.high, merged=True)
            started = time.monotonic()
            running.shard.swap(running.runs, made)
        except Exception:  # Edge raises plain Exception; the old runs are there
            log.warning("a merge failed; it is tried again", exc_info=True)
            self._release(running)
            self._clear(running)
            self._failed()
            return
        self._release(running)
        self.notice(running.folder, running.shard)  # perhaps nobody else will
        self.counts.merges += 1
        self.counts.points += outcome.points
        self.counts.seconds += outcome.seconds
        log.info(
            "merged a collection's runs",
            extra={
                "runs": len(running.runs),
                "points": outcome.points,
                "seconds": outcome.seconds,
                "swap_seconds": round(time.monotonic() - started, 3),
            },
        )

    def _failed(self) -> None:
        self.counts.failed += 1
        self._not_before = time.monotonic() + PAUSE_SECONDS

    def _release(self, running: _Running) -> None:
        self._running = None
        running.shard.deleting = None
        running.held.close()

    def _clear(self, running: _Running) -> None:
        """Delete what a merge without an effect has left."""
        with suppress(OSError, ValueError):
            self._wait(partial(sweep, running.shard.path, read(running.shard.path)))


def choose(runs: Sequence[Run], growth: float = GROWTH) -> tuple[str, ...]:
    """The newest runs that should be one, oldest first; empty when all is well."""
    if not runs:
        return ()
    start = len(runs) - 1
    points = runs[start].points
    while start and runs[start - 1].points <= growth * points:
        start -= 1
        points += runs[start].points
    chosen = runs[start:]
    if len(chosen) == 1 and chosen[0].merged:
        return ()
    return tuple(run.name for run in chosen)


def _facts(shard: Shard) -> list[Run]:
    return [run.facts for run in shard.runs]


def _has_rest(shard: Shard) -> bool:
    """Whether a collection with runs has much beside them."""
    return bool(shard.runs) and shard.delta.statistics >= REST_POINTS


def _is_ragged(shard: Shard) -> bool:
    """Whether a collection has parts that are worth merging once it rests."""
    return _has_rest(shard) or bool(choose(_facts(shard), MOST_GROWTH))


def _rest_needed(shard: Shard) -> float:
    """Seconds of rest after which a collection is to be merged further; infinite where a merge
    since it was looked at has left nothing to do."""
    if _has_rest(shard):
        return REST_SECONDS
    if not _is_ragged(shard):
        return math.inf
    elder, newest = _facts(shard)[-2:]
    return max(elder.points / newest.points / REST_GROWTH, REST_SECONDS)


def _growth(shard: Shard) -> float:
    """How much larger a run may be to be merged with those after it."""
    rested = time.monotonic() - shard.written
    return min(max(REST_GROWTH * rested, GROWTH), MOST_GROWTH)


def _mostly_dead(shard: Shard) -> tuple[str, ...]:
    """A run of which much was deleted."""
    for run in shard.runs:
        dead = run.facts.points - run.part.count()
        if dead >= max(DEAD_POINTS, DEAD_SHARE * run.facts.points):
            return (run.facts.name,)
    return ()
