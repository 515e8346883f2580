"""Chunks as points: one Qdrant collection for each embedding model."""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from qdrant_client import models

from services.retrieve.adapters.conditions import ACCESS, facet_keys
from services.retrieve.adapters.points import DENSE, SPARSE, Allowed, payload
from services.retrieve.adapters.qdrant import ids
from services.retrieve.adapters.qdrant.connection import Connection
from services.retrieve.adapters.qdrant.dialect import (
    COLLECTION,
    TENANT,
    VERSION,
    allowed_filter,
    equals,
    one_of,
    scope,
    tenant_part,
)
from services.retrieve.adapters.qdrant.errors import MissingPoint, says_exists
from services.retrieve.adapters.qdrant.ids import batched
from services.retrieve.adapters.qdrant.options import QdrantOptions
from services.retrieve.ports import Document, EncodedChunk, SparseVector

BATCH = 256
"""Points of one write."""
READ = 1024
"""Points of one read."""
MAX_FACETS = 10_000
"""Values of one facet; a tenant has fewer collections."""
_ORDER = models.WriteOrdering.MEDIUM
"""A deletion comes after the write that it follows, on every copy."""

Ranking = list[tuple[int, float]]
"""Positions with scores, best first."""


class Chunks:
    """The points of all collections."""

    def __init__(self, connection: Connection, options: QdrantOptions) -> None:
        self._connection = connection
        self._options = options
        self._made: set[str] = set()

    def name(self, encoder: str, dimensions: int) -> str:
        """The Qdrant collection of an embedding model, whose name may hold what its may not."""
        digest = hashlib.sha256(f"{encoder} {dimensions}".encode()).hexdigest()
        return f"{self._options.prefix}-{digest[:24]}"

    async def names(self) -> list[str]:
        """All Qdrant collections that hold chunks."""
        answer = await self._connection.call("get_collections")
        start = f"{self._options.prefix}-"
        return sorted(
            one.name
            for one in answer.collections
            if one.name.startswith(start) and len(one.name) == len(start) + 24
        )

    async def ensure(self, name: str, dimensions: int) -> None:
        """Make a Qdrant collection with its payload indexes, unless it is there."""
        if name in self._made:
            return
        if not await self._connection.call("collection_exists", name):
            try:
                await self._connection.call("create_collection", name, **self._layout(dimensions))
            except Exception as error:
                if not says_exists(error):  # another replica was quicker
                    raise
        await make_indexes(self._connection, name, self._indexes())
        self._made.add(name)

    def _layout(self, dimensions: int) -> dict[str, Any]:
        options = self._options
        dense = models.VectorParams(
            size=dimensions, distance=models.Distance.COSINE, on_disk=options.on_disk or None
        )
        # Every search names a tenant and a collection, so graphs are built within these (payload_m)
        # and none over all tenants together (m).
        graph = models.HnswConfigDiff(
            m=0, payload_m=options.hnsw_m, ef_construct=options.hnsw_ef_construct
        )
        return {
            "vectors_config": {DENSE: dense},
            "sparse_vectors_config": {
                SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)
            },
            "hnsw_config": graph,
            "quantization_config": _quantization(options),
            "on_disk_payload": True,
            **spread(options, options.shards or None),
        }

    def _indexes(self) -> dict[str, Any]:
        """What every search filters by, and what deletes, by field."""
        plain = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, enable_hnsw=False)
        within = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD)
        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        number = models.FloatIndexParams(type=models.FloatIndexType.FLOAT, enable_hnsw=False)
        metadata = {
            key: number if is_number else plain
            for path in self._options.indexed_metadata
            for key, is_number in facet_keys(path).items()
        }
        return {
            TENANT: tenant,
            COLLECTION: within,
            VERSION: plain,
            "document_id": plain,
            "language": plain,
            ACCESS: plain,
            **metadata,
        }

    # Writing

    async def write(
        self, name: str, folder: str, points: Iterable[tuple[int, Document, EncodedChunk]]
    ) -> None:
        """Write chunks, given with their documents' versions and facts."""
        own = {TENANT: tenant_part(folder), COLLECTION: folder}
        made = [
            models.PointStruct(
                id=ids.point(ids.position(version, one.chunk.index)),
                vector={DENSE: _dense(one.dense), SPARSE: _sparse(one.sparse)},
                payload=payload(document, version, one.chunk)
                | {VERSION: ids.text_of(version)}
                | own,
            )
            for version, document, one in points
        ]
        for batch in batched(made, BATCH):
            await self._connection.call("upsert", name, list(batch), wait=True, ordering=_ORDER)

    async def reweigh(self, name: str, vectors: Sequence[tuple[int, SparseVector]]) -> None:
        """Give points other sparse vectors; those that are gone stay gone."""
        made = [
            models.PointVectors(id=ids.point(place), vector={SPARSE: _sparse(vector)})
            for place, vector in vectors
        ]
        for batch in batched(made, BATCH):
            try:
                await self._connection.call(
                    "update_vectors", name, list(batch), wait=True, ordering=_ORDER
                )
            except MissingPoint:
                continue  # the others of the batch were written

    async def delete_versions(self, name: str, folder: str, versions: Iterable[int]) -> None:
        gone = [ids.text_of(version) for version in versions]
        if gone:
            await self._delete(name, [*scope(folder), one_of(VERSION, gone)])

    async def delete_folder(self, name: str, folder: str) -> None:
        await self._delete(name, scope(folder))

    async def delete_tenant(self, tenant: str) -> None:
        for name in await self.names():
            await self._delete(name, [equals(TENANT, tenant)])

    async def _delete(self, name: str, conditions: list[Any]) -> None:
        selector = models.FilterSelector(filter=models.Filter(must=conditions))
        await self._connection.call("delete", name, selector, wait=True, ordering=_ORDER)

    # Reading

    async def nearest(
        self,
        name: str,
        folder: str,
        arms: Sequence[tuple[bytes | SparseVector, Allowed]],
        limit: int,
        hidden: Iterable[str],
    ) -> list[Ranking]:
        """A ranking for each arm, in one round trip."""
        gone = list(hidden)
        requests = [
            self._request(vector, allowed_filter(folder, allowed, gone), folder, limit)
            for vector, allowed in arms
        ]
        answers = await self._connection.call("query_batch_points", name, requests)
        return [[(ids.place(hit.id), float(hit.score)) for hit in one.points] for one in answers]

    def _request(
        self, vector: bytes | SparseVector, where: models.Filter, folder: str, limit: int
    ) -> models.QueryRequest:
        if isinstance(vector, SparseVector):
            return models.QueryRequest(
                query=_sparse(vector), using=SPARSE, filter=where, params=_idf(folder), limit=limit
            )
        options = self._options
        quantized = options.quantization != "none"
        params = models.SearchParams(
            hnsw_ef=options.hnsw_ef or None,
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=2.0)
            if quantized
            else None,
        )
        return models.QueryRequest(
            query=_dense(vector), using=DENSE, filter=where, params=params, limit=limit
        )

    async def idf(self, name: str, folder: str, terms: Sequence[int]) -> list[float]:
        """The weight that the sparse arm gives each term; 0 for one that no point has.

        Qdrant does not tell it, but the score that a term alone gives a point, divided by the
        point's own weight of it, is that.
        """
        own = models.Filter(must=scope(folder))
        requests = [
            models.QueryRequest(
                query=models.SparseVector(indices=[term], values=[1.0]), using=SPARSE, filter=own,
                params=_idf(folder), limit=1, with_vector=[SPARSE],
            )
            for term in terms
        ]  # fmt: skip
        answers = await self._connection.call("query_batch_points", name, requests)
        weights = []
        for term, answer in zip(terms, answers, strict=True):
            weight = 0.0
            for hit in answer.points:
                vector = hit.vector[SPARSE]
                weight = hit.score / vector.values[vector.indices.index(term)]
            weights.append(float(weight))
        return weights

    async def read(
        self, name: str, places: Sequence[int], vectors: Sequence[str] = (), *, texts: bool = True
    ) -> dict[int, models.Record]:
        """Points that exist, with these of their vectors."""
        found: dict[int, models.Record] = {}
        for batch in batched(places, READ):
            records = await self._connection.call(
                "retrieve", name, [ids.point(one) for one in batch], with_payload=texts,
                with_vectors=list(vectors) or False,
            )  # fmt: skip
            found.update((ids.place(one.id), one) for one in records)
        return found

    async def folders(self, tenant: str) -> set[str]:
        """A tenant's collections that have points."""
        own = models.Filter(must=[equals(TENANT, tenant)])
        answers = await asyncio.gather(
            *(
                self._connection.call(
                    "facet", name, COLLECTION, facet_filter=own, limit=MAX_FACETS, exact=True
                )
                for name in await self.names()
            )
        )
        return {str(hit.value) for answer in answers for hit in answer.hits}


async def make_indexes(connection: Connection, name: str, indexes: Mapping[str, Any]) -> None:
    """Make payload indexes; those that are there stay as they are."""
    if connection.local:
        return  # it has none, and warns
    for key, schema in indexes.items():
        await connection.call("create_payload_index", name, key, schema, wait=True)


def spread(options: QdrantOptions, shards: int | None) -> dict[str, Any]:
    """How a Qdrant collection lies in a cluster."""
    return {
        "shard_number": shards,
        "replication_factor": options.replicas,
        "write_consistency_factor": options.acknowledging,
    }


def dense_of(record: models.Record) -> bytes:
    """A point's dense vector: little-endian float32, of length 1."""
    vectors: Any = record.vector
    return np.asarray(vectors[DENSE], "<f4").tobytes()


def terms_of(record: models.Record) -> tuple[int, ...]:
    vectors: Any = record.vector
    return tuple(vectors[SPARSE].indices)


def _quantization(options: QdrantOptions) -> models.QuantizationConfig | None:
    if options.quantization == "scalar":
        return models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(
                type=models.ScalarType.INT8, quantile=0.99, always_ram=True
            )
        )
    if options.quantization == "binary":
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    return None


def _idf(folder: str) -> models.SearchParams:
    """Term statistics of the collection's own points, not of other tenants'."""
    corpus = models.IdfCorpusParams(corpus=models.Filter(must=scope(folder)))
    return models.SearchParams(idf=corpus)


def _sparse(vector: SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=list(vector.indices), values=list(vector.values))


def _dense(vector: bytes) -> list[float]:
    values: list[float] = np.frombuffer(vector, "<f4").tolist()
    return values
