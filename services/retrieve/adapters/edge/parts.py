"""One shard of the engine: its configuration, its conditions, its calls.

A collection has one part, or several that are searched together (`services.retrieve.adapters.edge.
shards`). Every call of the engine holds the GIL.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version as package_version
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from services.retrieve.adapters.conditions import ACCESS, translate
from services.retrieve.adapters.edge.files import copy_tree, remove_tree, sync_file, sync_tree
from services.retrieve.adapters.points import DENSE, SPARSE, Allowed, payload, point_id
from services.retrieve.ports import Bounds, Document, EncodedChunk, SparseVector

INDEXED = ("language", "document_id", ACCESS)
"""Fields that whole searches filter by: without an index that reads every payload, 48 ms at 15,000
points; with one 3 ms."""
INDEX_POINTS = 500
"""From so many points on a part has those indexes. They are half of its files and of the time that
opening takes, which matters for many small collections; reading so many payloads takes 1.6 ms."""
MAX_SKIPPED = 2048
"""Hidden points that are read and left out. A condition on ids costs the engine a millisecond
for some hundred of them, reading as many more hits a fraction of that."""
WAL = "wal"
EF, EF_POINTS, LEAST_EF = 480, 100_000, 200
"""Candidates that a walk of a run's graph keeps, of which more are needed the larger it is: for a
recall@10 of about .97 on texts 480 at 100,000 points."""
EF_GROWTH_BELOW, EF_GROWTH_ABOVE = 0.65, 0.9
"""For tenfold points so many times more as ten to the power of this, in runs of fewer points and in
larger ones."""
_RANKED = attrgetter("id", "score")
OWN_FILES = ("edge_config.json", "segments", WAL)
"""What the engine keeps in a shard's folder."""


class Part:
    """One shard of the engine."""

    def __init__(self, path: Path) -> None:
        """Open what is there."""
        self.path = path
        self._edge = edge.EdgeShard.load(str(path))
        self._idf: dict[int, float] = {}
        self.dirty = False
        """Whether something was written that is not durable yet."""
        self.fresh = False
        """Whether its files are a copy that is not durable yet."""
        self.unflushed = 0
        """Points written or deleted since the engine last wrote its files."""
        self.statistics = self.count()
        """Points that the engine's IDF counts: those deleted since the opening too. Without any
        there is nothing to ask the engine for."""
        self._params = _params(self.statistics)
        indexed = self._edge.info().payload_schema or {}
        self._unindexed = [field for field in INDEXED if field not in indexed]

    def upsert(self, points: Sequence[tuple[int, Document, EncodedChunk]]) -> list[int]:
        """Write chunks; returns their ids."""
        ids = [point_id(version, one.chunk.index) for version, _, one in points]
        made = [
            edge.Point(
                id_,
                {
                    DENSE: np.frombuffer(one.dense, "<f4").tolist(),
                    SPARSE: sparse_vector(one.sparse),
                },
                payload(document, version, one.chunk),
            )
            for id_, (version, document, one) in zip(ids, points, strict=True)
        ]
        self._write(edge.UpdateOperation.upsert_points(made), len(ids))
        self.statistics += len(ids)
        if self._unindexed and self.statistics >= INDEX_POINTS:
            # One with each write: it takes tens of milliseconds, and reads are answered in between.
            create_index(self._edge, self._unindexed.pop())
        return ids

    def delete(self, points: Sequence[int]) -> None:
        self._write(edge.UpdateOperation.delete_points(list(points)), len(points))

    def _write(self, operation: Any, points: int) -> None:
        self._edge.update(operation)
        self._idf.clear()
        self.dirty = True
        self.unflushed += points

    def sync(self) -> None:
        """Make what was written durable: the log is enough, opening reads it. Lets go of the GIL.

        The engine's own flush costs some 25 fsyncs with the GIL held.
        """
        self.dirty = False
        if self.fresh:
            self.fresh = False
            sync_tree(self.path)
            for folder in islice(self.path.parents, 2):  # the tenant's and all tenants'
                sync_file(folder)
            return
        for path in sorted((self.path / WAL).iterdir()):
            sync_file(path)
        sync_file(self.path / WAL)

    def flush(self) -> None:
        """Write the files, and shorten the log."""
        self._edge.flush()
        self.dirty = False
        self.unflushed = 0

    def nearest(
        self, vector: bytes | SparseVector, limit: int, allowed: Allowed
    ) -> list[tuple[int, float]]:
        if not self.statistics:
            return []
        hidden = allowed.hidden
        if hidden and len(hidden) <= MAX_SKIPPED:
            allowed = replace(allowed, hidden=frozenset())
        filter_ = translate(
            EdgeDialect(),
            allowed.filter,
            languages=allowed.languages,
            hidden=allowed.hidden,
            readable=allowed.readable,
        )
        if isinstance(vector, SparseVector):
            query = edge.Query.Nearest(sparse_vector(vector), using=SPARSE)
        else:
            query = edge.Query.Nearest(np.frombuffer(vector, "<f4").tolist(), using=DENSE)
        asked = limit if allowed.hidden else limit + len(hidden)
        request = edge.QueryRequest(
            limit=asked, query=query, filter=filter_, params=self._params, with_payload=False
        )
        found: list[Any] = self._edge.query(request)
        if not hidden:
            return list(map(_RANKED, found))
        return [hit for hit in map(_RANKED, found) if hit[0] not in hidden][:limit]

    def payloads(self, points: Sequence[int]) -> dict[int, Mapping[str, Any]]:
        if not self.statistics:
            return {}
        records: list[Any] = self._edge.retrieve(list(points), with_payload=True, with_vector=False)
        return {record.id: record.payload or {} for record in records}

    def vectors(self, points: Sequence[int]) -> dict[int, bytes]:
        if not self.statistics:
            return {}
        records: list[Any] = self._edge.retrieve(
            list(points), with_payload=False, with_vector=[DENSE]
        )
        return {one.id: np.asarray(named(one.vector, DENSE), "<f4").tobytes() for one in records}

    def terms(self, points: Sequence[int]) -> dict[int, tuple[int, ...]]:
        if not self.statistics:
            return {}
        records: list[Any] = self._edge.retrieve(
            list(points), with_payload=False, with_vector=[SPARSE]
        )
        return {one.id: tuple(named(one.vector, SPARSE).indices) for one in records}

    def having(self, points: Sequence[int]) -> list[int]:
        """Those of the points that are here."""
        if not self.statistics:
            return []
        records: list[Any] = self._edge.retrieve(
            list(points), with_payload=False, with_vector=False
        )
        return [record.id for record in records]

    def idf(self, term: int) -> float:
        """The weight that this part gives a term; 0 for one that no point has.

        The engine does not tell it: the score of the point that has most of the term is the
        weight times the point's own.
        """
        if not self.statistics:
            return 0.0
        known = self._idf.get(term)
        if known is None:
            query = edge.Query.Nearest(edge.SparseVector([term], [1.0]), using=SPARSE)
            request = edge.QueryRequest(limit=1, query=query, with_vector=[SPARSE])
            known = 0.0
            for hit in self._edge.query(request):
                vector = named(hit.vector, SPARSE)
                known = float(hit.score / vector.values[vector.indices.index(term)])
            self._idf[term] = known
        return known

    def frequency(self, term: int) -> float:
        """In how many points a term is, from the engine's ln((N + 1) / (n + .5))."""
        idf = self.idf(term)
        return max((self.statistics + 1) / math.exp(idf) - 0.5, 0.0) if idf else 0.0

    def count(self) -> int:
        return int(self._edge.count(edge.CountRequest(exact=True)))

    def ids(self) -> list[int]:
        """Those of all points."""
        ids: list[int] = []
        offset: Any = None
        while True:
            request = edge.ScrollRequest(
                limit=5000, offset=offset, with_payload=False, with_vector=False
            )
            records: Any
            records, offset = self._edge.scroll(request)
            ids.extend(record.id for record in records)
            if offset is None:
                return ids

    def close(self) -> None:
        if self.fresh:
            self.sync()
        self._edge.close()  # which flushes


class Templates:
    """Empty shards to copy: making one takes half a second of fsyncs, copying it milliseconds."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def copy(self, dimensions: int, target: Path, *, indexed: bool = False) -> None:
        """Put an empty shard into a folder that may be there already. It is not durable yet.

        Args:
            dimensions: of its vectors.
            target: the folder.
            indexed: whether it has indexes from the beginning, as it will have many points.
        """
        kind = f"{dimensions}-{'indexed' if indexed else 'small'}"
        template = self._root / f".template-{package_version('qdrant-edge-py')}-{kind}"
        if not template.exists():
            making = template.with_suffix(".new")
            remove_tree(making)
            made = edge.EdgeShard.create(str(_made(making)), _config(dimensions))
            for field in INDEXED if indexed else ():
                create_index(made, field)
            made.close()
            sync_tree(making)
            making.rename(template)
        copying = target.with_name(f"{target.name}.new")
        remove_tree(copying)
        copy_tree(template, copying)
        copying.rename(target)


def _params(points: int) -> Any:
    """How a part of so many points is searched. Runs find by 8-bit copies of the vectors; scores of
    several parts must be comparable."""
    growth = EF_GROWTH_BELOW if points < EF_POINTS else EF_GROWTH_ABOVE
    ef = max(round(EF * (points / EF_POINTS) ** growth), LEAST_EF)
    rescored = edge.QuantizationSearchParams(rescore=True)
    return edge.SearchParams(hnsw_ef=ef, quantization=rescored)


def create_index(shard: Any, field: str) -> None:
    """Have conditions on a field read an index instead of payloads."""
    shard.update(edge.UpdateOperation.create_field_index(field, edge.PayloadSchemaType.Keyword))


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def has_shard(path: Path) -> bool:
    """Whether the engine has files in a folder."""
    return any((path / name).exists() for name in OWN_FILES)


def _config(dimensions: int) -> Any:
    """Of what is written to. Cold files are read as they are needed; of others the engine reads
    all pages at every opening, holes too: 33 MB and 20 ms even for a single chunk."""
    cold = edge.Memory.Cold
    return edge.EdgeConfig(
        vectors={
            DENSE: edge.EdgeVectorParams(
                size=dimensions, distance=edge.Distance.Cosine, memory=cold
            )
        },
        sparse_vectors={
            SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf, memory=cold)
        },
        max_search_threads=1,  # a pool for each open shard
    )


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

    def points(self, points: Iterable[int]) -> Any:
        return edge.HasIdCondition(set(points))


def named(vectors: Any, name: str) -> Any:
    """One of a point's vectors. Edge's types allow points with a single, nameless one."""
    return vectors[name]


def sparse_vector(vector: SparseVector) -> Any:
    return edge.SparseVector(list(vector.indices), list(vector.values))
