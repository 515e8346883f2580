"""Searches: one round trip for the candidates of both arms, one for what is in the best of them."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from services.retrieve.access import EVERYTHING
from services.retrieve.adapters.points import DENSE, SPARSE, Allowed, stored_chunk
from services.retrieve.adapters.qdrant import ids
from services.retrieve.adapters.qdrant.catalog import Catalog
from services.retrieve.adapters.qdrant.chunks import Chunks, Ranking, dense_of, terms_of
from services.retrieve.adapters.qdrant.records import CollectionRow
from services.retrieve.adapters.qdrant.writing import Writer
from services.retrieve.fusion import Fused, fuse
from services.retrieve.ports import (
    Attributes,
    Candidate,
    CollectionKey,
    Document,
    SparseVector,
    StoreQuery,
)

ROUNDS = 6
"""How often a search is asked again that met chunks which are not current."""
MAX_REMEMBERED = 10_000


class Searcher:
    """Finds current chunks."""

    def __init__(self, catalog: Catalog, chunks: Chunks, writer: Writer) -> None:
        self._catalog = catalog
        self._chunks = chunks
        self._writer = writer
        self._rows: OrderedDict[CollectionKey, CollectionRow] = OrderedDict()

    def remember(self, row: CollectionRow) -> None:
        """Where a collection was a moment ago: searches begin there and look meanwhile."""
        self._rows[row.facts.key] = row
        self._rows.move_to_end(row.facts.key)
        while len(self._rows) > MAX_REMEMBERED:
            self._rows.popitem(last=False)

    def forget(self, key: CollectionKey) -> None:
        self._rows.pop(key, None)

    async def search(self, key: CollectionKey, query: StoreQuery) -> list[Candidate]:
        """Candidates of the arms, fused, best first.

        What the arms find may be of versions that are being written or were just replaced. These
        are looked up with the best candidates' payloads, left out, and the arms asked again; with
        each round it is looked up again whether what was left out has become current.
        """
        row = self._rows.get(key) or await self._catalog.find(key)
        stale: set[str] = set()
        answer: list[Candidate] = []
        for _ in range(ROUNDS):
            hidden = stale | self._writer.hidden(row.folder)
            fresh, arms = await asyncio.gather(
                self._catalog.find(key), self._arms(row, query, hidden)
            )
            self.remember(fresh)
            if fresh.folder != row.folder:  # deleted and made again
                row, stale = fresh, set()
                continue
            fused = _fused(*arms, query)
            seen = {_version(place) for arm in arms for place, _ in arm}
            current, records, documents = await asyncio.gather(
                self._catalog.current(row.folder, seen | hidden),
                self._chunks.read(self._name(row), [hit.id for hit in fused], _wanted(query)),
                self._documents(row, {_version(hit.id) for hit in fused}),
            )
            answer = [
                _candidate(hit, records[hit.id], documents[_version(hit.id)], query)
                for hit in fused
                if hit.id in records and _version(hit.id) in documents
            ]
            if seen <= current and not hidden & current and len(answer) == len(fused):
                return answer
            stale = (stale | seen) - current
        return answer

    async def _documents(self, row: CollectionRow, versions: set[str]) -> Mapping[str, Document]:
        return await self._catalog.documents(row.folder, versions) if versions else {}

    async def _arms(
        self, row: CollectionRow, query: StoreQuery, hidden: set[str]
    ) -> tuple[Ranking, Ranking]:
        allowed = Allowed(filter=query.filter, readable=_readable(query.attributes))
        asked: list[tuple[bytes | SparseVector, Allowed]] = []
        if query.dense is not None:
            asked.append((query.dense, replace(allowed, languages=query.dense_languages)))
        if query.sparse is not None and query.sparse.indices:
            asked.append((query.sparse, allowed))
        if not asked:
            return [], []
        rankings: Sequence[Ranking] = await self._chunks.nearest(
            self._name(row), row.folder, asked, query.depth, hidden
        )
        dense = rankings[0] if query.dense is not None else []
        sparse = rankings[-1] if isinstance(asked[-1][0], SparseVector) else []
        return dense, sparse

    def _name(self, row: CollectionRow) -> str:
        return self._chunks.name(row.facts.encoder, row.facts.dimensions)


def _fused(dense: Ranking, sparse: Ranking, query: StoreQuery) -> list[Fused]:
    """Fusion orders equal scores by id, in 64 bits; a point's id here has 128, so it is its place
    among all of them that is fused."""
    ids = sorted({place for arm in (dense, sparse) for place, _ in arm})
    places = {id_: place for place, id_ in enumerate(ids)}
    arms = [[(places[id_], score) for id_, score in arm] for arm in (dense, sparse)]
    fused = fuse(arms[0], arms[1], query.weights, query.top_k)
    return [replace(hit, id=ids[hit.id]) for hit in fused]


def _version(place: int) -> str:
    return ids.text_of(ids.version_of(place))


def _readable(attributes: Attributes) -> Attributes | None:
    return None if EVERYTHING in attributes else attributes


def _wanted(query: StoreQuery) -> list[str]:
    return [*([DENSE] if query.vectors else []), *([SPARSE] if query.terms else [])]


def _candidate(hit: Fused, record: Any, document: Document, query: StoreQuery) -> Candidate:
    return Candidate(
        stored_chunk(document, ids.index_of(hit.id), record.payload or {}),
        hit.score,
        hit.dense_rank,
        hit.sparse_rank,
        hit.dense_score,
        hit.sparse_score,
        dense_of(record) if query.vectors else None,
        terms_of(record) if query.terms else None,
    )
