"""Open shards: at most so many at once, the longest unused is closed first."""

import logging
import shutil
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from services.retrieve.adapters.conditions import ACCESS, translate
from services.retrieve.adapters.points import DENSE, SPARSE, Allowed, payload, point_id
from services.retrieve.ports import (
    Bounds,
    Document,
    EncodedChunk,
    NewCollection,
    SparseVector,
)
from services.runtime.errors import DataLoss

log = logging.getLogger(__name__)

_INDEXED = ("language", "document_id", ACCESS)
"""Fields that whole searches filter by: without an index that reads every payload, 48 ms at 15,000
points; with one 3 ms."""


class Shard:
    """One collection's points."""

    def __init__(self, path: Path, dimensions: int) -> None:
        """Open the shard, or create it where nothing is."""
        if (path / "edge_config.json").exists() or (path / "segments").exists():
            self._edge = edge.EdgeShard.load(str(path))
        else:
            path.mkdir(parents=True, exist_ok=True)
            self._edge = edge.EdgeShard.create(str(path), _config(dimensions))
        for field in _INDEXED:  # nothing happens where the index is there
            self._edge.update(
                edge.UpdateOperation.create_field_index(field, edge.PayloadSchemaType.Keyword)
            )
        self.used = time.monotonic()

    def upsert(self, points: Iterable[tuple[int, Document, EncodedChunk]]) -> None:
        self._edge.update(
            edge.UpdateOperation.upsert_points(
                [
                    edge.Point(
                        point_id(version, one.chunk.index),
                        {
                            DENSE: np.frombuffer(one.dense, "<f4").tolist(),
                            SPARSE: _sparse(one.sparse),
                        },
                        payload(document, version, one.chunk),
                    )
                    for version, document, one in points
                ]
            )
        )

    def delete(self, points: Sequence[int]) -> None:
        self._edge.update(edge.UpdateOperation.delete_points(list(points)))

    def flush(self) -> None:
        self._edge.flush()

    def nearest(
        self, vector: bytes | SparseVector, limit: int, allowed: Allowed
    ) -> list[tuple[int, float]]:
        filter_ = translate(
            EdgeDialect(),
            allowed.filter,
            languages=allowed.languages,
            hidden=allowed.hidden,
            readable=allowed.readable,
        )
        if isinstance(vector, SparseVector):
            query = edge.Query.Nearest(_sparse(vector), using=SPARSE)
        else:
            query = edge.Query.Nearest(np.frombuffer(vector, "<f4").tolist(), using=DENSE)
        request = edge.QueryRequest(limit=limit, query=query, filter=filter_, with_payload=False)
        return [(int(hit.id), float(hit.score)) for hit in self._edge.query(request)]

    def payloads(self, points: Sequence[int]) -> dict[int, dict[str, Any]]:
        records = self._edge.retrieve(list(points), with_payload=True, with_vector=False)
        return {int(record.id): record.payload or {} for record in records}

    def vectors(self, points: Sequence[int]) -> dict[int, bytes]:
        records = self._edge.retrieve(list(points), with_payload=False, with_vector=[DENSE])
        return {
            int(one.id): np.asarray(_named(one.vector, DENSE), "<f4").tobytes() for one in records
        }

    def terms(self, points: Sequence[int]) -> dict[int, tuple[int, ...]]:
        records = self._edge.retrieve(list(points), with_payload=False, with_vector=[SPARSE])
        return {int(one.id): tuple(_named(one.vector, SPARSE).indices) for one in records}

    def idf(self, terms: Sequence[int]) -> list[float]:
        return [self._idf(term) for term in terms]

    def _idf(self, term: int) -> float:
        """A term's IDF, from the score that it alone gives the point that has most of it.

        The engine does not tell its IDF; the score of a point is that times the point's weight.
        """
        query = edge.Query.Nearest(edge.SparseVector([term], [1.0]), using=SPARSE)
        request = edge.QueryRequest(limit=1, query=query, with_vector=[SPARSE])
        hits = self._edge.query(request)
        if not hits:
            return 0.0
        vector = _named(hits[0].vector, SPARSE)
        return float(hits[0].score / vector.values[vector.indices.index(term)])

    def count(self) -> int:
        """Points, current or not."""
        return int(self._edge.count(edge.CountRequest(exact=True)))

    def close(self) -> None:
        self._edge.flush()
        self._edge.close()


class Shards:
    """The open shards of one data folder."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._open: OrderedDict[str, Shard] = OrderedDict()

    def open(self, folder: str, facts: NewCollection, *, expect_data: bool) -> Shard:
        """The shard of a folder, relative to the root; see `services.retrieve.adapters.points`."""
        shard = self._open.get(folder)
        if shard is None:
            while len(self._open) >= self._limit:
                self.close(next(iter(self._open)))
            shard = self._open[folder] = self._load(
                self._root / folder, facts.dimensions, expect_data
            )
        self._open.move_to_end(folder)
        shard.used = time.monotonic()
        return shard

    def _load(self, path: Path, dimensions: int, expect_data: bool) -> Shard:
        try:
            if expect_data and not path.exists():
                raise FileNotFoundError(path)
            return Shard(path, dimensions)
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
        return Shard(path, dimensions)

    def close(self, folder: str) -> None:
        shard = self._open.pop(folder, None)
        if shard is not None:
            shard.close()

    def close_idle(self, seconds: float) -> None:
        """Close shards that nobody used for so long."""
        limit = time.monotonic() - seconds
        for folder in [name for name, shard in self._open.items() if shard.used < limit]:
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

    def __len__(self) -> int:
        return len(self._open)


class EdgeDialect:
    """Conditions of Qdrant Edge."""

    def group(self, must: Sequence[Any], must_not: Sequence[Any], should: Sequence[Any]) -> Any:
        return edge.Filter(
            must=list(must) or None, must_not=list(must_not) or None, should=list(should) or None
        )

    def any_of(self, path: str, values: Sequence[str]) -> Any:
        return edge.FieldCondition(path, match=edge.MatchAny(list(values)))

    def numbers(self, path: str, bounds: Bounds) -> Any:
        b = bounds
        return edge.FieldCondition(
            path, range=edge.RangeFloat(gt=b.gt, gte=b.gte, lt=b.lt, lte=b.lte)
        )

    def empty(self, path: str) -> Any:
        return edge.IsEmptyCondition(path)

    def points(self, points: frozenset[int]) -> Any:
        return edge.HasIdCondition(set(points))


def _config(dimensions: int) -> Any:
    return edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(size=dimensions, distance=edge.Distance.Cosine)},
        sparse_vectors={SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        max_search_threads=1,  # a pool for each open shard
    )


def _named(vectors: Any, name: str) -> Any:
    """One of a point's vectors. Edge's types allow points with a single, nameless one."""
    return vectors[name]


def _sparse(vector: SparseVector) -> Any:
    return edge.SparseVector(list(vector.indices), list(vector.values))
