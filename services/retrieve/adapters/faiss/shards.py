"""Shards over faiss: arrays in memory, made from the rows on disk when a collection is opened."""

import logging
import shutil
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.retrieve.adapters.conditions import translate
from services.retrieve.adapters.faiss.dense import Dense, read_graph
from services.retrieve.adapters.faiss.masks import Columns, Flags, MaskDialect
from services.retrieve.adapters.faiss.postings import Postings
from services.retrieve.adapters.faiss.rows import Rows
from services.retrieve.adapters.points import Allowed, payload, point_id
from services.retrieve.ports import Document, EncodedChunk, NewCollection, SparseVector
from services.runtime.errors import DataLoss

log = logging.getLogger(__name__)

DEAD_ROWS = 1000
"""Dead rows that do not matter; more of them are dropped once they are half of all."""


class FaissShard:
    """One collection's points. A point's row changes when it is written again."""

    def __init__(self, folder: Path, dimensions: int) -> None:
        """Raises: sqlite3.DatabaseError, for a file that cannot be read."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._dimensions = dimensions
        self._rows = Rows(folder / "points.sqlite")
        self.used = time.monotonic()
        self.failed = False
        """Whether memory and disk may differ: then it has to be opened again."""
        self._load()

    def _load(self) -> None:
        graph = read_graph(self._folder, self._dimensions)
        known = graph.stamp if graph is not None else 0
        self._dense = Dense(self._dimensions, graph)
        self._postings = Postings()
        self._columns: Columns | None = None
        self._points = np.zeros(0, np.int64)
        self._alive = np.zeros(0, np.bool_)
        self._row_of: dict[int, int] = {}
        self._stamp = max(self._rows.last_stamp(), known)
        stored = list(self._rows.everything(dense_after=known))
        kept = {one.point: one for one in stored if one.stamp <= known}
        points = graph.points.tolist() if graph is not None else []
        # A chunk may be there without its row in the graph: it was broken, and an older one is
        # never written. Then its vector is read after all.
        lost = kept.keys() - set(points)
        late = [one for one in stored if one.stamp > known or one.point in lost]
        vectors = self._rows.dense_of(list(lost))
        empty = np.zeros(0, np.uint32), np.zeros(0, np.float32)
        latest = {point: row for row, point in enumerate(points)}  # one may be there twice
        first = [kept.get(point) if latest[point] == row else None
                 for row, point in enumerate(points)]  # fmt: skip
        self._append(
            points,
            [empty if one is None else (one.terms, one.weights) for one in first],
            alive=[one is not None for one in first],
        )
        if late:
            blobs = [vectors.get(one.point, one.dense) for one in late]
            self._dense.add(np.frombuffer(b"".join(blobs), "<f4").reshape(len(late), -1))
            self._append([one.point for one in late], [(one.terms, one.weights) for one in late])

    def _append(
        self,
        points: Sequence[int],
        vectors: Sequence[tuple[NDArray[np.uint32], NDArray[np.float32]]],
        alive: Sequence[bool] | None = None,
    ) -> None:
        """Add rows whose vectors are in the dense arm already."""
        if not points:
            return
        first = len(self._points)
        flags = np.ones(len(points), np.bool_) if alive is None else np.asarray(alive)
        self._points = np.append(self._points, np.asarray(points, np.int64))
        self._alive = np.append(self._alive, flags)
        self._postings.add(first, vectors)
        self._row_of.update(
            (point, first + place) for place, point in enumerate(points) if flags[place]
        )

    # Writing

    def upsert(self, points: Iterable[tuple[int, Document, EncodedChunk]]) -> None:
        given = {point_id(version, one.chunk.index): (version, document, one)
                 for version, document, one in points}  # fmt: skip
        if not given:
            return
        names = list(given)
        vectors = np.stack([np.frombuffer(one.dense, "<f4") for _, _, one in given.values()])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = (vectors / np.where(lengths > 0, lengths, 1.0)).astype("<f4")
        written = [point for point in names if point in self._row_of]
        before, stamps = self._rows.dense_of(written), self._rows.stamps_of(written)
        self._dense.add(vectors)
        payloads = [payload(document, version, one.chunk) for version, document, one in
                    given.values()]  # fmt: skip
        sparse = [one.sparse for _, _, one in given.values()]
        try:
            for point, facts, row, terms in zip(names, payloads, vectors, sparse, strict=True):
                blob = row.tobytes()
                if before.get(point) == blob:  # what a graph has of it stays right
                    stamp = stamps[point]
                else:
                    self._stamp += 1
                    stamp = self._stamp
                self._rows.put(point, stamp, facts, blob, terms)
        except sqlite3.Error:
            self.failed = True
            raise
        self._kill(written)
        first = len(self._points)
        self._append(
            names,
            [(np.asarray(one.indices, np.uint32), np.asarray(one.values, np.float32))
             for one in sparse],
        )  # fmt: skip
        if self._columns is not None:
            for place, facts in enumerate(payloads):
                self._columns.add(first + place, facts)

    def delete(self, points: Sequence[int]) -> None:
        held = [point for point in points if point in self._row_of]
        if held:
            try:
                self._rows.delete(held)
            except sqlite3.Error:
                self.failed = True
                raise
            self._kill(held)

    def _kill(self, points: Iterable[int]) -> None:
        for point in points:
            self._alive[self._row_of.pop(point)] = False

    def flush(self) -> None:
        try:
            self._rows.commit()
        except sqlite3.Error:
            self.failed = True
            raise
        dead = len(self._points) - len(self._row_of)
        if dead > DEAD_ROWS and dead > len(self._row_of):
            self._dense.close()
            self._load()
        self._dense.tend(self._folder, self._points, self._stamp)

    def settle(self) -> None:
        """Wait for the graph; for tests and benchmarks."""
        self._dense.settle()
        self._dense.tend(self._folder, self._points, self._stamp)

    # Reading

    def nearest(
        self, vector: bytes | SparseVector, limit: int, allowed: Allowed
    ) -> list[tuple[int, float]]:
        seen = self._seen(allowed)
        if isinstance(vector, SparseVector):
            flags = self._alive if seen is None else seen
            hits = self._postings.search(vector, limit, self._alive, flags)
        else:
            query = np.frombuffer(vector, "<f4")
            length = float(np.linalg.norm(query)) or 1.0
            exact = not (
                allowed.filter is None and allowed.languages is None and allowed.readable is None
            )
            unit = (query / length).astype(np.float32)
            hits = self._dense.search(unit, limit, seen, exact=exact)
        return [(int(self._points[row]), score) for row, score in hits]

    def _seen(self, allowed: Allowed) -> Flags | None:
        """The rows that may be found; None for all."""
        if self._columns is None and (
            allowed.filter is not None
            or allowed.languages is not None
            or allowed.readable is not None
        ):
            self._columns = Columns()
            for point, facts in self._rows.payloads():
                self._columns.add(self._row_of[point], facts)
        dialect = MaskDialect(self._columns or Columns(), self._row_of, len(self._points))
        found: Flags | None = translate(
            dialect,
            allowed.filter,
            languages=allowed.languages,
            hidden=allowed.hidden,
            readable=allowed.readable,
        )
        if found is not None:
            return found & self._alive
        return None if len(self._row_of) == len(self._points) else self._alive

    def payloads(self, points: Sequence[int]) -> Mapping[int, Mapping[str, Any]]:
        return self._rows.payloads_of(points)

    def vectors(self, points: Sequence[int]) -> Mapping[int, bytes]:
        return self._rows.dense_of(points)

    def terms(self, points: Sequence[int]) -> Mapping[int, tuple[int, ...]]:
        return self._rows.terms_of(points)

    def count(self) -> int:
        return len(self._row_of)

    def idf(self, terms: Sequence[int]) -> list[float]:
        return self._postings.idf(terms, self._alive)

    def close(self) -> None:
        self._dense.close()
        if not self.failed:
            self._rows.commit()
        self._rows.close()


class FaissShards:
    """The open shards of one data folder: at most so many, the longest unused is closed first."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._open: OrderedDict[str, FaissShard] = OrderedDict()

    def open(self, folder: str, facts: NewCollection, *, expect_data: bool) -> FaissShard:
        shard = self._open.get(folder)
        if shard is not None and shard.failed:
            self.close(folder)
            shard = None
        if shard is None:
            while len(self._open) >= self._limit:
                self.close(next(iter(self._open)))
            path = self._root / folder
            shard = self._open[folder] = self._load(path, facts.dimensions, expect_data)
        self._open.move_to_end(folder)
        shard.used = time.monotonic()
        return shard

    def _load(self, path: Path, dimensions: int, expect_data: bool) -> FaissShard:
        try:
            if expect_data and not (path / "points.sqlite").exists():
                raise sqlite3.DatabaseError("the points are gone")
            shard = FaissShard(path, dimensions)
            if expect_data and not shard.count():
                shard.close()
                raise sqlite3.DatabaseError("the points are gone")
            return shard
        except (sqlite3.DatabaseError, ValueError) as error:
            log.warning("a shard cannot be opened", extra={"folder": path.name}, exc_info=True)
            if expect_data:
                raise DataLoss(
                    "COLLECTION_UNREADABLE",
                    "The collection's index cannot be read; restore it or delete the collection "
                    "and ingest again.",
                ) from error
        shutil.rmtree(path, ignore_errors=True)
        return FaissShard(path, dimensions)

    def close(self, folder: str) -> None:
        shard = self._open.pop(folder, None)
        if shard is not None:
            shard.close()

    def close_idle(self, seconds: float) -> None:
        limit = time.monotonic() - seconds
        for folder in [name for name, shard in self._open.items() if shard.used < limit]:
            self.close(folder)

    def remove(self, folder: str) -> None:
        self.close(folder)
        shutil.rmtree(self._root / folder, ignore_errors=True)

    def folders(self, parent: str) -> int:
        path = self._root / parent
        return 1 + sum(1 for _ in path.iterdir()) if path.exists() else 0

    def remove_parent(self, parent: str) -> None:
        for folder in [name for name in self._open if name.startswith(f"{parent}/")]:
            self.close(folder)
        shutil.rmtree(self._root / parent, ignore_errors=True)

    def close_all(self) -> None:
        for folder in list(self._open):
            self.close(folder)

    def __len__(self) -> int:
        return len(self._open)
