"""The dense arm: a flat index, and from some ten thousand rows on a graph over most of them.

The graph is HNSW (Malkov & Yashunin, TPAMI 2018). It cannot forget a row: dead ones stay in it and
are left out of searches. What it does not have yet is scanned. When that is much, a new graph is
built in a thread, which does not hold the interpreter, and kept in a file of its own.
"""

import hashlib
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import msgpack  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

GRAPH_FROM = 20_000
"""Rows without a graph from which one is built; a scan of so many takes about a millisecond."""
GROWTH = 0.25
"""Share of the graph's rows that may be without one."""
LINKS = 32
"""M of the paper."""
BUILD_WIDTH = 128
"""efConstruction of the paper."""
SEARCH_WIDTH = 256
"""efSearch of the paper, at least; twice the number of hits where they are many."""
MUCH = 10
"""Who wants more than this part of all rows has them scanned: that costs less, and misses none."""
_FILE = "graph"
_DIGEST = 32

Vectors = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph over the first rows."""

    index: Any
    points: NDArray[np.int64]
    """By row."""
    stamp: int
    """Of the last chunk that it has; a chunk with a later one is not in it, whatever its point."""

    @property
    def rows(self) -> int:
        return len(self.points)


class Dense:
    """The vectors of a collection, by row. Not thread-safe."""

    def __init__(self, dimensions: int, graph: Graph | None) -> None:
        self._dimensions = dimensions
        self._graph = graph
        self._tail = faiss.IndexFlatIP(dimensions)
        self._first = graph.rows if graph is not None else 0
        self._build: _Build | None = None

    def __len__(self) -> int:
        return self._first + int(self._tail.ntotal)

    @property
    def graph_rows(self) -> int:
        return self._first

    def add(self, vectors: Vectors) -> None:
        """Add rows; vectors have length 1."""
        self._tail.add(np.ascontiguousarray(vectors))

    def search(
        self, vector: Vectors, limit: int, allowed: Flags | None, *, exact: bool
    ) -> list[tuple[int, float]]:
        """Rows with their cosines, best first.

        Args:
            vector: of length 1.
            limit: rows, at most.
            allowed: the rows that may be found; None for all.
            exact: whether the graph is scanned, too: under a filter it might miss some.
        """
        query = np.ascontiguousarray(vector.reshape(1, -1))
        found: list[tuple[int, float]] = []
        if self._graph is not None:
            flags = None if allowed is None else allowed[: self._first]
            found += _search(self._graph.index, query, limit, flags, exact=exact)
        if self._tail.ntotal:
            flags = None if allowed is None else allowed[self._first :]
            tail = _search(self._tail, query, limit, flags, exact=True)
            found += [(row + self._first, score) for row, score in tail]
        found.sort(key=lambda one: (-one[1], one[0]))
        return found[:limit]

    # The graph

    def tend(self, folder: Path, points: NDArray[np.int64], stamp: int) -> None:
        """Take over a graph that is ready, and begin one that is due.

        Args:
            folder: where it is kept.
            points: by row.
            stamp: of the last chunk among them, which is durable.
        """
        if self._build is not None:
            if self._build.is_alive():
                return
            built, self._build = self._build.result, None
            if built is not None:
                self._take_over(built)
        if self._tail.ntotal >= max(GRAPH_FROM, GROWTH * self._first):
            self._build = _Build(folder, self._vectors(), points.copy(), stamp)
            self._build.start()

    def settle(self) -> None:
        """Wait for a graph that is being built; `tend` takes it over."""
        if self._build is not None:
            self._build.join()

    def _take_over(self, graph: Graph) -> None:
        rest = self._vectors()[graph.rows :]
        self._graph, self._first = graph, graph.rows
        self._tail = faiss.IndexFlatIP(self._dimensions)
        self._tail.add(rest)

    def _vectors(self) -> Vectors:
        parts = [_all(self._tail)]
        if self._graph is not None:
            parts.insert(0, _all(faiss.downcast_index(self._graph.index.storage)))
        return np.concatenate(parts)

    def close(self) -> None:
        self.settle()


class _Build(threading.Thread):
    """Builds a graph and writes it down."""

    def __init__(
        self, folder: Path, vectors: Vectors, points: NDArray[np.int64], stamp: int
    ) -> None:
        super().__init__(name="faiss-graph", daemon=True)
        self._folder = folder
        self._vectors = vectors
        self._points = points
        self._stamp = stamp
        self.result: Graph | None = None

    def run(self) -> None:
        try:
            faiss.omp_set_num_threads(1)  # of this thread; the others are for searches
            dimensions = self._vectors.shape[1]
            index = faiss.IndexHNSWFlat(dimensions, LINKS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = BUILD_WIDTH
            index.add(self._vectors)
            graph = Graph(index, self._points, self._stamp)
            write_graph(self._folder, graph)
            self.result = graph
        except Exception:
            # Without it searches are slower, and the next tending tries again.
            log.warning("a graph could not be built", exc_info=True)


def write_graph(folder: Path, graph: Graph) -> None:
    """Write a graph in one piece, durably."""
    body = msgpack.packb(
        {
            "stamp": graph.stamp,
            "points": graph.points.astype("<i8").tobytes(),
            "index": faiss.serialize_index(graph.index).tobytes(),
        }
    )
    draft = folder / f"{_FILE}.new"
    with draft.open("wb") as file:
        file.write(hashlib.sha256(body).digest())
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / _FILE)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_graph(folder: Path, dimensions: int) -> Graph | None:
    """The graph of a folder; None where there is none, or a broken one, which can be made again."""
    try:
        content = (folder / _FILE).read_bytes()
    except FileNotFoundError:
        return None
    digest, body = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        log.warning("a graph is broken and will be built again", extra={"folder": folder.name})
        return None
    value = msgpack.unpackb(body, max_bin_len=len(body))
    index = faiss.deserialize_index(np.frombuffer(value["index"], np.uint8))
    points = np.frombuffer(value["points"], "<i8").astype(np.int64)
    if index.d != dimensions or index.ntotal != len(points):
        return None
    return Graph(index, points, value["stamp"])


def _search(
    index: Any, query: Vectors, limit: int, allowed: Flags | None, *, exact: bool
) -> list[tuple[int, float]]:
    rows = int(index.ntotal)
    if allowed is not None and not allowed.any():
        return []
    selector = None
    if allowed is not None and not allowed.all():
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
    wanted = min(limit, rows)
    if isinstance(index, faiss.IndexHNSW) and (exact or wanted * MUCH >= rows):
        index = faiss.downcast_index(index.storage)
    if isinstance(index, faiss.IndexHNSW):
        width = max(SEARCH_WIDTH, 2 * wanted)
        options = faiss.SearchParametersHNSW(sel=selector, efSearch=width)
    else:
        options = faiss.SearchParameters(sel=selector)
    scores, found = index.search(query, wanted, params=options)
    pairs = zip(found[0].tolist(), scores[0].tolist(), strict=True)
    return [(row, score) for row, score in pairs if row >= 0]


def _all(index: Any) -> Vectors:
    found: Vectors = (
        index.reconstruct_n(0, index.ntotal) if index.ntotal else np.zeros((0, index.d), np.float32)
    )
    return found
