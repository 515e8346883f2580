"""Open collections: at most so many at once, the longest unused is closed first.

A collection is one shard of the engine, the delta, until it has grown; then it is runs beside a
delta, searched together, and merges keep the runs few (`services.retrieve.adapters.edge.layout`).
"""

import logging
import math
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol, TypeVar

from services.retrieve.adapters.edge.files import read_ahead, sync_tree, warm
from services.retrieve.adapters.edge.layout import (
    Layout,
    Run,
    new_name,
    read,
    remove,
    sweep,
    unlink,
    write,
)
from services.retrieve.adapters.edge.parts import Part, Templates, has_shard
from services.retrieve.adapters.points import Allowed, Wait, wait_here
from services.retrieve.ports import Document, EncodedChunk, NewCollection, SparseVector
from services.runtime.errors import DataLoss

log = logging.getLogger(__name__)

UPSERT_POINTS = 10
DELETE_POINTS = 500
"""Points of one write: so long a read may have to wait for the GIL."""
MAX_SPARE = 16
"""Collections that can be opened without closing others first, if there was time to make room."""
MAX_UNFLUSHED = 50_000
"""Writes in a shard's log from which the engine writes its files: opening reads the log."""


Item = TypeVar("Item")


@dataclass(slots=True)
class OpenRun:
    """A run with its open part."""

    facts: Run
    part: Part


class Shard:
    """One collection's points."""

    def __init__(self, path: Path, dimensions: int, templates: Templates, wait: Wait) -> None:
        """Open the collection of a folder."""
        self.path = path
        self.dimensions = dimensions
        self._templates = templates
        self._wait = wait
        self._layout = read(path)
        sweep(path, self._layout)
        self.delta = Part(path / self._layout.delta)
        self.runs = [OpenRun(run, Part(path / run.name)) for run in self._layout.runs]
        for run in self._layout.runs:
            _in_background(partial(read_ahead, path / run.name))
        self._moved: set[int] = self._in_runs(self.delta.ids()) if self.runs else set()
        """Points of runs that the delta has anew, until the runs are rid of them."""
        self.deleting: list[int] | None = None
        """What was deleted from runs since a merge began; None without one."""
        self.dead = sum(run.facts.points - run.part.statistics for run in self.runs)
        """About how many points of runs were deleted since a merge was last considered."""
        self._pins = 0
        self.used = self.written = time.monotonic()

    @property
    def pinned(self) -> bool:
        """Whether it must stay open."""
        return self._pins > 0

    @contextmanager
    def pin(self) -> Iterator[None]:
        """Keep it open."""
        self._pins += 1
        try:
            yield
        finally:
            self._pins -= 1

    # Writing

    def upsert(self, points: Iterable[tuple[int, Document, EncodedChunk]]) -> None:
        self.written = time.monotonic()
        with self.pin():
            for number, piece in enumerate(_pieces(points, UPSERT_POINTS)):
                if number:
                    self._wait(None)
                self._moved.update(self._in_runs(self.delta.upsert(piece)))

    def _in_runs(self, points: Sequence[int]) -> set[int]:
        return {
            point
            for run in self.runs
            if (old := [one for one in points if one <= run.facts.high])
            for point in run.part.having(old)
        }

    def delete(self, points: Sequence[int]) -> None:
        self.written = time.monotonic()
        with self.pin():
            for number, piece in enumerate(_pieces(points, DELETE_POINTS)):
                if number:
                    self._wait(None)
                self.delta.delete(piece)
                self._delete_from_runs(piece)

    def _delete_from_runs(self, points: Sequence[int]) -> None:
        for run in self.runs:
            if old := [one for one in points if one <= run.facts.high]:
                run.part.delete(old)
                self.dead += len(old)
        if self.deleting is not None:
            self.deleting.extend(points)

    def flush(self) -> None:
        with self.pin():
            parts = [part for part in self._parts() if part.dirty]

            def sync() -> None:
                for part in parts:
                    part.sync()

            self._wait(sync)
            if self._moved:
                # Only now: the delta has them durably. Whoever dies before leaves them in both,
                # and the newer part counts.
                moved, self._moved = sorted(self._moved), set()
                for piece in _pieces(moved, DELETE_POINTS):
                    self._delete_from_runs(piece)
            for part in parts:
                if part.unflushed > MAX_UNFLUSHED:
                    part.flush()

    # Reading

    def _parts(self) -> list[Part]:
        """Newest first."""
        return [self.delta, *(run.part for run in reversed(self.runs))]

    def nearest(
        self, vector: bytes | SparseVector, limit: int, allowed: Allowed
    ) -> list[tuple[int, float]]:
        if not self.runs:
            return self.delta.nearest(vector, limit, allowed)
        found = self._nearest_in(self.delta, vector, limit, allowed)
        for run in self.runs:
            hidden = {one for one in allowed.hidden if one <= run.facts.high} | self._moved
            here = (
                replace(allowed, hidden=frozenset(hidden)) if allowed.hidden or hidden else allowed
            )
            found.extend(self._nearest_in(run.part, vector, limit, here))
        found.sort(key=itemgetter(1), reverse=True)
        return found[:limit]

    def _nearest_in(
        self, part: Part, vector: bytes | SparseVector, limit: int, allowed: Allowed
    ) -> list[tuple[int, float]]:
        if isinstance(vector, SparseVector):
            vector = self._weighed(part, vector)
            if not vector.indices:
                return []
        return part.nearest(vector, limit, allowed)

    def _weighed(self, part: Part, vector: SparseVector) -> SparseVector:
        """A query whose terms get the IDF of the whole collection from a part that has its own."""
        if not any(one.statistics for one in self._parts() if one is not part):
            return vector  # the part's is the collection's
        indices, values = [], []
        for term, value in zip(vector.indices, vector.values, strict=True):
            if own := part.idf(term):
                indices.append(term)
                values.append(value * self._idf(term) / own)
        return SparseVector(tuple(indices), tuple(values))

    def idf(self, terms: Sequence[int]) -> list[float]:
        if not self.runs:
            return [self.delta.idf(term) for term in terms]
        return [self._idf(term) for term in terms]

    def _idf(self, term: int) -> float:
        """Of the whole collection, as the engine would reckon it: ln((N + 1) / (n + .5))."""
        parts = self._parts()
        having = sum(part.frequency(term) for part in parts)
        if having < 0.5:
            return 0.0
        return math.log((sum(part.statistics for part in parts) + 1) / (having + 0.5))

    def payloads(self, points: Sequence[int]) -> Mapping[int, Mapping[str, Any]]:
        return self._collect(points, Part.payloads)

    def vectors(self, points: Sequence[int]) -> Mapping[int, bytes]:
        return self._collect(points, Part.vectors)

    def terms(self, points: Sequence[int]) -> Mapping[int, tuple[int, ...]]:
        return self._collect(points, Part.terms)

    def _collect(
        self, points: Sequence[int], method: Callable[[Part, Sequence[int]], dict[int, Any]]
    ) -> dict[int, Any]:
        """What the newest part that has a point says of it."""
        found: dict[int, Any] = {}
        missing = list(points)
        for part in self._parts():
            if not missing:
                break
            found |= method(part, missing)
            missing = [point for point in missing if point not in found]
        return found

    def count(self) -> int:
        return sum(part.count() for part in self._parts()) - len(self._moved)

    # Runs

    def freeze(self) -> None:
        """Make a run of the delta, and begin another; reads are answered between the steps."""
        with self.pin():
            self.flush()
            self._wait(None)
            old, layout = self.delta, self._layout
            name = new_name()
            self._wait(
                partial(self._templates.copy, self.dimensions, self.path / name, indexed=True)
            )
            self._wait(partial(warm, self.path / name))
            delta = Part(self.path / name)
            self._wait(None)
            run = Run(layout.delta, old.count(), max(old.ids(), default=0), merged=False)
            changed = Layout(name, (*layout.runs, run))

            def make_durable() -> None:
                sync_tree(self.path / name)
                write(self.path, changed)

            self._wait(make_durable)
            self._layout, self.delta = changed, delta
            self.runs.append(OpenRun(run, old))

    def swap(self, names: Sequence[str], run: Run) -> None:
        """Put a merged run in the place of those that it was merged from.

        Raises:
            ValueError: when it lacks points that it must have; nothing is changed.
        """
        with self.pin():
            self._wait(partial(warm, self.path / run.name))
            part = Part(self.path / run.name)
            # Before it is searched: opening has had the cache forget it, and each page that is not
            # there is a wait for the disk.
            self._wait(partial(read_ahead, self.path / run.name))
            old = [one for one in self.runs if one.facts.name in names]
            deleted = list(dict.fromkeys(self.deleting or ()))
            for piece in _pieces(deleted, DELETE_POINTS):
                part.delete(piece)
                self._wait(None)
            live = 0
            for one in old:
                live += one.part.count()
                self._wait(None)
            if part.count() < live:
                part.close()
                raise ValueError("a merged run lacks points")
            merged = [OpenRun(run, part)] if part.count() else []
            place = self.runs.index(old[0])
            runs = [one for one in self.runs if one not in old]
            runs[place:place] = merged
            changed = Layout(self._layout.delta, tuple(one.facts for one in runs))

            def make_durable() -> None:
                part.sync()
                write(self.path, changed)

            try:
                self._wait(make_durable)
            except OSError:
                part.close()
                raise
            self._layout, self.runs = changed, runs
            gone = old if merged else [*old, OpenRun(run, part)]
            for one in gone:
                self._forget(one)

    def _forget(self, run: OpenRun) -> None:
        """Close a run that is no part of the collection any more, and delete its files."""
        with ExitStack() as kept:

            def lighten() -> None:
                # Closing flushes, with the GIL held; what the kernel has written by then it need
                # not, and what is deleted by then frees no memory.
                sync_tree(run.part.path)
                unlink(self.path, run.facts.name, kept)

            def clear() -> None:
                kept.close()
                remove(self.path, run.facts.name)

            try:
                self._wait(lighten)
                run.part.close()
                self._wait(clear)
            except Exception:  # what is left goes when the collection is opened next
                log.warning("a merged run cannot be removed", exc_info=True)

    def close(self) -> None:
        for part in self._parts():
            part.close()


def _in_background(task: Callable[[], None]) -> None:
    """Run something that nobody waits for, and that needs no end."""
    threading.Thread(target=task, daemon=True).start()


def _pieces(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while piece := list(islice(iterator, size)):
        yield piece


class Attendant(Protocol):
    """Who is told of collections that may have grown too large to be one shard."""

    def notice(self, folder: str, shard: Shard) -> None:
        """Look at a collection after a write, or when it was opened."""

    def leave(self, folder: str) -> None:
        """Let go of a collection, which is about to be closed."""


class Shards:
    """The open shards of one data folder."""

    def __init__(self, root: Path, limit: int, wait: Wait = wait_here) -> None:
        """Args:
        root: the folder.
        limit: collections that are open at once.
        wait: has the caller wait for something durable.
        """
        self._root = root
        self._limit = limit
        self._wait = wait
        self._templates = Templates(root)
        self._open: OrderedDict[str, Shard] = OrderedDict()
        self.attendant: Attendant | None = None

    def open(self, folder: str, facts: NewCollection, *, expect_data: bool) -> Shard:
        """The shard of a folder, relative to the root; see `services.retrieve.adapters.points`."""
        shard = self._open.get(folder)
        if shard is None:
            self._make_room()
            shard = self._load(self._root / folder, facts.dimensions, expect_data)
            self._open[folder] = shard
        if self.attendant is not None:
            self.attendant.notice(folder, shard)
        self._open.move_to_end(folder)
        shard.used = time.monotonic()
        return shard

    def _make_room(self) -> None:
        for folder in self._closable():
            if len(self._open) < self._limit:
                return
            self.close(folder)

    @property
    def crowded(self) -> bool:
        """Whether so many are open that one should be closed when nobody waits."""
        return len(self._open) > self._limit - min(self._limit // 8, MAX_SPARE)

    def close_oldest(self) -> None:
        """Close the one that nobody used for longest, so that an opening has not to wait for it."""
        if closable := self._closable():
            self.close(closable[0])

    def _closable(self) -> list[str]:
        """Open ones that may be closed, the longest unused first."""
        return [name for name, shard in self._open.items() if not shard.pinned]

    def _load(self, path: Path, dimensions: int, expect_data: bool) -> Shard:
        try:
            if expect_data or has_shard(path):
                return Shard(path, dimensions, self._templates, self._wait)
        except Exception as error:
            # Edge raises plain Exception for everything that it finds wrong on disk.
            log.warning("a shard cannot be opened", extra={"folder": path.name}, exc_info=True)
            if expect_data:
                raise DataLoss(
                    "COLLECTION_UNREADABLE",
                    "The collection's index cannot be read; restore it or delete the collection "
                    "and ingest again.",
                ) from error
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(exist_ok=True)
        self._templates.copy(dimensions, path)
        shard = Shard(path, dimensions, self._templates, self._wait)
        shard.delta.fresh = True
        return shard

    def close(self, folder: str) -> None:
        shard = self._open.pop(folder, None)
        if shard is not None:
            if self.attendant is not None:
                self.attendant.leave(folder)
            shard.close()

    def close_idle(self, seconds: float) -> None:
        """Close shards that nobody used for so long."""
        limit = time.monotonic() - seconds
        for folder in [
            name for name, shard in self._open.items() if shard.used < limit and not shard.pinned
        ]:
            self.close(folder)

    def remove(self, folder: str) -> None:
        """Close a shard and delete its files."""
        self.close(folder)
        shutil.rmtree(self._root / folder, ignore_errors=True)

    def folders(self, parent: str) -> int:
        """How many folders a tenant has on disk, its own included."""
        path = self._root / parent
        return 1 + sum(1 for one in path.iterdir()) if path.exists() else 0

    def remove_parent(self, parent: str) -> None:
        """Delete a tenant's folder with whatever lies in it."""
        for folder in [name for name in self._open if name.startswith(f"{parent}/")]:
            self.close(folder)
        shutil.rmtree(self._root / parent, ignore_errors=True)

    def close_all(self) -> None:
        for folder in list(self._open):
            self.close(folder)

    def delta_points(self) -> int:
        """About how many points of open collections no index covers."""
        return sum(shard.delta.statistics for shard in self._open.values())

    def __len__(self) -> int:
        return len(self._open)
