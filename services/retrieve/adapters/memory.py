"""``memory://``: exact search in this process's memory, with numpy. Nothing outlives the process.

For tests and for collections of some ten thousand chunks that may be lost.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.retrieve.adapters.catalog import Catalog
from services.retrieve.adapters.conditions import translate
from services.retrieve.adapters.index import Index
from services.retrieve.adapters.points import Allowed, payload, point_id
from services.retrieve.adapters.predicates import Payload, Predicate, Predicates
from services.retrieve.adapters.sparse import ENGINE, with_sparse
from services.retrieve.adapters.store import InProcessStore
from services.retrieve.ports import (
    Document,
    EncodedChunk,
    NewCollection,
    SparseVector,
)
from services.runtime.errors import FailedPrecondition

log = logging.getLogger(__name__)


class MemoryStore(InProcessStore):
    """Collections in memory."""

    def __init__(
        self, location: str, data: Path, *, open_shards: int = 64, sparse: str = ENGINE
    ) -> None:
        """Args:
        location: what follows ``memory://``: nothing.
        data: not used, as nothing is kept.
        open_shards: how many collections have their word index open at once.
        sparse: where the sparse arm lives.

        Raises:
            FailedPrecondition: VECTOR_URL_INVALID, for a location.
        """
        if location:
            raise FailedPrecondition(
                "VECTOR_URL_INVALID", "memory:// keeps nothing, so it takes no path."
            )
        super().__init__(
            "memory",
            lambda: Index(
                Catalog(":memory:"), with_sparse(sparse, MemoryShards(), None, open_shards)
            ),
        )

    async def start(self) -> None:
        await super().start()
        log.warning("VECTOR_URL is memory://: what is indexed ends with this process")


class MemoryShard:
    """One collection's points, held in dictionaries and one matrix."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._payloads: dict[int, Payload] = {}
        self._dense: dict[int, NDArray[np.float32]] = {}
        self._sparse: dict[int, SparseVector] = {}
        self._postings: dict[int, dict[int, float]] = defaultdict(dict)
        self._matrix: tuple[list[int], NDArray[np.float32]] | None = None

    def upsert(self, points: Iterable[tuple[int, Document, EncodedChunk]]) -> None:
        for version, document, one in points:
            point = point_id(version, one.chunk.index)
            self._remove(point)
            vector = np.frombuffer(one.dense, "<f4")
            length = float(np.linalg.norm(vector))
            self._dense[point] = (vector / (length or 1.0)).astype(np.float32)
            self._payloads[point] = payload(document, version, one.chunk)
            self._sparse[point] = one.sparse
            for term, weight in zip(one.sparse.indices, one.sparse.values, strict=True):
                self._postings[term][point] = weight
        self._matrix = None

    def delete(self, points: Sequence[int]) -> None:
        for point in points:
            self._remove(point)
        self._matrix = None

    def _remove(self, point: int) -> None:
        if self._payloads.pop(point, None) is not None:
            del self._dense[point]
            for term in self._sparse.pop(point).indices:
                del self._postings[term][point]

    def flush(self) -> None:
        """Nothing to do: nothing is kept."""

    def nearest(
        self, vector: bytes | SparseVector, limit: int, allowed: Allowed
    ) -> list[tuple[int, float]]:
        scores = (
            self._sparse_scores(vector)
            if isinstance(vector, SparseVector)
            else self._dense_scores(vector)
        )
        test: Predicate | None = translate(
            Predicates(),
            allowed.filter,
            languages=allowed.languages,
            hidden=allowed.hidden,
            readable=allowed.readable,
        )
        found = []
        for point, score in sorted(scores, key=lambda pair: (-pair[1], pair[0])):
            if test is None or test(point, self._payloads[point]):
                found.append((point, score))
                if len(found) == limit:
                    break
        return found

    def _dense_scores(self, vector: bytes) -> Iterable[tuple[int, float]]:
        if self._matrix is None:
            empty = np.zeros((0, self._dimensions), np.float32)
            rows = np.stack(list(self._dense.values())) if self._dense else empty
            self._matrix = list(self._dense), rows
        points, matrix = self._matrix
        query = np.frombuffer(vector, "<f4")
        length = float(np.linalg.norm(query)) or 1.0
        return zip(points, (matrix @ (query / length)).tolist(), strict=True)

    def _sparse_scores(self, vector: SparseVector) -> Iterable[tuple[int, float]]:
        scores: dict[int, float] = defaultdict(float)
        weights = self.idf(vector.indices)
        for term, value, idf in zip(vector.indices, vector.values, weights, strict=True):
            for point, weight in self._postings.get(term, {}).items():
                scores[point] += value * idf * weight
        return scores.items()

    def payloads(self, points: Sequence[int]) -> Mapping[int, Payload]:
        return {one: self._payloads[one] for one in points if one in self._payloads}

    def vectors(self, points: Sequence[int]) -> Mapping[int, bytes]:
        return {
            one: self._dense[one].astype("<f4").tobytes() for one in points if one in self._dense
        }

    def terms(self, points: Sequence[int]) -> Mapping[int, tuple[int, ...]]:
        return {one: self._sparse[one].indices for one in points if one in self._sparse}

    def count(self) -> int:
        return len(self._payloads)

    def idf(self, terms: Sequence[int]) -> list[float]:
        counts = [len(self._postings.get(term, ())) for term in terms]
        total = len(self._payloads)
        return [
            math.log((total - count + 0.5) / (count + 0.5) + 1) if count else 0.0
            for count in counts
        ]


class MemoryShards:
    """The collections by folder."""

    def __init__(self) -> None:
        self._shards: dict[str, MemoryShard] = {}

    def open(self, folder: str, facts: NewCollection, *, expect_data: bool) -> MemoryShard:
        return self._shards.setdefault(folder, MemoryShard(facts.dimensions))

    def remove(self, folder: str) -> None:
        self._shards.pop(folder, None)

    def folders(self, parent: str) -> int:
        """None is on disk; those in memory count as if they were, the tenant's own included."""
        found = sum(folder.startswith(f"{parent}/") for folder in self._shards)
        return 1 + found if found else 0

    def remove_parent(self, parent: str) -> None:
        for folder in [name for name in self._shards if name.startswith(f"{parent}/")]:
            del self._shards[folder]

    def close_idle(self, seconds: float) -> None:
        """Nothing is ever closed: it would be lost."""

    def close_all(self) -> None:
        self._shards.clear()

    def __len__(self) -> int:
        return len(self._shards)
