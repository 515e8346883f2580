"""Qdrant through its own client: ``qdrant+local://PATH`` for the client's local mode.

The layout is a server's: one Qdrant collection for each embedding model, with the tenant and the
collection in the payload of every point, so that many small collections cost nothing. IDF is
measured over the collection's own points, not over those of other tenants. What is current, and
for whom, is in our catalogue beside it.

Local mode searches exactly and in Python: for tests and for collections of some thousand chunks.
A server's address would only change how `QdrantClient` is made; that was never run against one.
"""

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from services.retrieve.adapters.catalog import Catalog
from services.retrieve.adapters.conditions import translate
from services.retrieve.adapters.index import Index
from services.retrieve.adapters.points import DENSE, SPARSE, Allowed, payload, point_id
from services.retrieve.adapters.sparse import ENGINE, with_sparse
from services.retrieve.adapters.store import InProcessStore
from services.retrieve.ports import Bounds, Document, EncodedChunk, NewCollection, SparseVector
from services.runtime.errors import DataLoss, FailedPrecondition

_TENANT, _COLLECTION = "tenant", "collection"
_MEMORY = ":memory:"
_BATCH = 256
"""Points of one call."""


class QdrantStore(InProcessStore):
    """Collections in Qdrant, looked after by a catalogue in SQLite."""

    def __init__(
        self, location: str, data: Path, *, open_shards: int = 64, sparse: str = ENGINE
    ) -> None:
        """Args:
        location: what follows ``qdrant+local://``: a folder, or ``:memory:``; empty for
            ``qdrant`` under `data`.
        data: where everything durable lives.
        open_shards: how many collections have their word index open at once; the client holds
            all of its own.
        sparse: where the sparse arm lives.
        """
        root = Path(location) if location else data / "qdrant"
        place = None if location == _MEMORY else root
        super().__init__("qdrant-local", lambda: _open(place, sparse, open_shards))


def _open(root: Path | None, sparse: str, open_shards: int) -> Index:
    """The index of a folder, or of this process's memory."""
    if root is None:
        shards = QdrantShards(QdrantClient(_MEMORY))
        return Index(Catalog(_MEMORY), with_sparse(sparse, shards, None, open_shards))
    root.mkdir(parents=True, exist_ok=True)
    try:
        client = QdrantClient(path=str(root / "points"))
    except RuntimeError as error:  # the client's word for a locked folder
        raise FailedPrecondition(
            "DATA_IN_USE",
            f"Another process works in {root}; stop it, or set RAGMESH_DATA or VECTOR_URL to "
            "another folder.",
        ) from error
    arms = with_sparse(sparse, QdrantShards(client), root, open_shards)
    return Index(Catalog(root / "catalog.sqlite"), arms, root=root)


class QdrantShard:
    """One collection's points among those of all collections with the same embedding model."""

    def __init__(self, client: QdrantClient, name: str, folder: str) -> None:
        """Args:
        client: of a server or of local mode.
        name: the Qdrant collection.
        folder: the tenant's part, a slash, and the collection's.
        """
        self._client = client
        self._name = name
        self._own = {_TENANT: folder.partition("/")[0], _COLLECTION: folder}
        self._scope = [
            models.FieldCondition(key=key, match=models.MatchValue(value=value))
            for key, value in self._own.items()
        ]

    def upsert(self, points: Iterable[tuple[int, Document, EncodedChunk]]) -> None:
        made = [
            models.PointStruct(
                id=point_id(version, one.chunk.index),
                vector={
                    DENSE: np.frombuffer(one.dense, "<f4").tolist(),
                    SPARSE: _sparse(one.sparse),
                },
                payload=self._own | payload(document, version, one.chunk),
            )
            for version, document, one in points
        ]
        for start in range(0, len(made), _BATCH):
            self._client.upsert(self._name, made[start : start + _BATCH], wait=True)

    def delete(self, points: Sequence[int]) -> None:
        if points:
            self._client.delete(self._name, models.PointIdsList(points=list(points)), wait=True)

    def flush(self) -> None:
        """Nothing to do: every call waits until it is carried out, and local mode commits it."""

    def nearest(
        self, vector: bytes | SparseVector, limit: int, allowed: Allowed
    ) -> list[tuple[int, float]]:
        sparse = isinstance(vector, SparseVector)
        corpus = models.IdfCorpusParams(corpus=models.Filter(must=list(self._scope)))
        found = self._client.query_points(
            self._name,
            query=_sparse(vector) if isinstance(vector, SparseVector) else _dense(vector),
            using=SPARSE if sparse else DENSE,
            query_filter=self._filter(allowed),
            search_params=models.SearchParams(idf=corpus) if sparse else None,
            limit=limit,
            with_payload=False,
        )
        return [(int(hit.id), float(hit.score)) for hit in found.points]

    def payloads(self, points: Sequence[int]) -> Mapping[int, Mapping[str, Any]]:
        records = self._client.retrieve(self._name, list(points), with_payload=True)
        return {int(record.id): record.payload or {} for record in records}

    def vectors(self, points: Sequence[int]) -> Mapping[int, bytes]:
        records = self._client.retrieve(
            self._name, list(points), with_payload=False, with_vectors=[DENSE]
        )
        return {
            int(record.id): np.asarray(record.vector[DENSE], "<f4").tobytes()
            for record in records
            if isinstance(record.vector, dict)
        }

    def terms(self, points: Sequence[int]) -> Mapping[int, tuple[int, ...]]:
        return {point: tuple(one.indices) for point, one in self._sparse(points).items()}

    def _sparse(self, points: Sequence[int]) -> Mapping[int, models.SparseVector]:
        """Sparse vectors of the points that exist."""
        records = self._client.retrieve(
            self._name, list(points), with_payload=False, with_vectors=[SPARSE]
        )
        return {
            int(record.id): vector
            for record in records
            if isinstance(record.vector, dict)
            and isinstance(vector := record.vector[SPARSE], models.SparseVector)
        }

    def idf(self, terms: Sequence[int]) -> list[float]:
        return [self._idf(term) for term in terms]

    def _idf(self, term: int) -> float:
        """A term's IDF, from the score that it alone gives the point that has most of it."""
        alone = SparseVector((term,), (1.0,))
        hits = self.nearest(alone, 1, Allowed())
        if not hits:
            return 0.0
        point, score = hits[0]
        vector = self._sparse([point])[point]
        return score / vector.values[vector.indices.index(term)]

    def count(self) -> int:
        """Points, current or not."""
        scope = models.Filter(must=list(self._scope))
        return self._client.count(self._name, scope, exact=True).count

    def remove(self) -> None:
        """Delete every point."""
        scope = models.Filter(must=list(self._scope))
        self._client.delete(self._name, models.FilterSelector(filter=scope), wait=True)

    def _filter(self, allowed: Allowed) -> models.Filter:
        asked = translate(
            QdrantDialect(),
            allowed.filter,
            languages=allowed.languages,
            hidden=allowed.hidden,
            readable=allowed.readable,
        )
        return models.Filter(must=[*self._scope, *([asked] if asked is not None else [])])


class QdrantShards:
    """The collections of one Qdrant."""

    def __init__(self, client: QdrantClient) -> None:
        self._client = client
        self._shards: dict[str, QdrantShard] = {}

    def open(self, folder: str, facts: NewCollection, *, expect_data: bool) -> QdrantShard:
        shard = self._shards.get(folder)
        if shard is None:
            name = _collection_name(facts)
            if not self._client.collection_exists(name):
                self._create(name, facts.dimensions)
            shard = QdrantShard(self._client, name, folder)
            if expect_data and not shard.count():
                raise DataLoss(
                    "COLLECTION_UNREADABLE",
                    "The collection's points are gone; restore them or delete the collection and "
                    "ingest again.",
                )
            self._shards[folder] = shard
        return shard

    def _create(self, name: str, dimensions: int) -> None:
        self._client.create_collection(
            name,
            vectors_config={
                DENSE: models.VectorParams(size=dimensions, distance=models.Distance.COSINE)
            },
            sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
        )
        with warnings.catch_warnings():
            # Local mode warns that it has no indexes; a server keeps tenants together by this one.
            warnings.simplefilter("ignore", UserWarning)
            tenants = models.KeywordIndexParams(
                type=models.KeywordIndexType.KEYWORD, is_tenant=True
            )
            self._client.create_payload_index(name, _TENANT, tenants)

    def remove(self, folder: str) -> None:
        self._shards.pop(folder, None)
        for one in self._client.get_collections().collections:
            QdrantShard(self._client, one.name, folder).remove()

    def folders(self, parent: str) -> int:
        """Collections that have points, as if each were a folder, the tenant's own included."""
        found = {
            folder
            for one in self._client.get_collections().collections
            for folder in self._folders(one.name, parent)
        }
        return 1 + len(found) if found else 0

    def _folders(self, name: str, parent: str) -> Iterable[str]:
        tenant = models.FieldCondition(key=_TENANT, match=models.MatchValue(value=parent))
        offset: Any = None
        while True:
            records, offset = self._client.scroll(
                name, models.Filter(must=[tenant]), limit=_BATCH, offset=offset,
                with_payload=[_COLLECTION],
            )  # fmt: skip
            yield from ((record.payload or {})[_COLLECTION] for record in records)
            if offset is None:
                return

    def remove_parent(self, parent: str) -> None:
        for folder in [name for name in self._shards if name.startswith(f"{parent}/")]:
            del self._shards[folder]
        tenant = models.FieldCondition(key=_TENANT, match=models.MatchValue(value=parent))
        for one in self._client.get_collections().collections:
            selector = models.FilterSelector(filter=models.Filter(must=[tenant]))
            self._client.delete(one.name, selector, wait=True)

    def close_idle(self, seconds: float) -> None:
        """Nothing is held open."""

    def close_all(self) -> None:
        self._shards.clear()
        self._client.close()

    def __len__(self) -> int:
        return len(self._shards)


class QdrantDialect:
    """Conditions of Qdrant."""

    def group(
        self, must: Sequence[Any], must_not: Sequence[Any], should: Sequence[Any]
    ) -> models.Filter:
        return models.Filter(
            must=list(must) or None, must_not=list(must_not) or None, should=list(should) or None
        )

    def any_of(self, path: str, values: Sequence[str]) -> models.FieldCondition:
        return models.FieldCondition(key=path, match=models.MatchAny(any=list(values)))

    def numbers(self, path: str, bounds: Bounds) -> models.FieldCondition:
        b = bounds
        return models.FieldCondition(
            key=path, range=models.Range(gt=b.gt, gte=b.gte, lt=b.lt, lte=b.lte)
        )

    def empty(self, path: str) -> models.IsEmptyCondition:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=path))

    def points(self, points: frozenset[int]) -> models.HasIdCondition:
        return models.HasIdCondition(has_id=list(points))


def _collection_name(facts: NewCollection) -> str:
    """One for each embedding model; its name may hold what a collection's may not."""
    digest = hashlib.sha256(f"{facts.encoder} {facts.dimensions}".encode()).hexdigest()
    return f"ragmesh-{digest[:24]}"


def _sparse(vector: SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=list(vector.indices), values=list(vector.values))


def _dense(vector: bytes) -> list[float]:
    values: list[float] = np.frombuffer(vector, "<f4").tolist()
    return values
