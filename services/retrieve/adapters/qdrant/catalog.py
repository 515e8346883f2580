"""The catalogue: one Qdrant collection that every replica of retrieve reads and writes.

A document's record is one point, so it changes whole or not at all. It is only ever written on the
condition that its revision is the one that was read; all writes go through the leader of the
record's shard (`WriteOrdering.STRONG`), so of two replicas one is first everywhere, and the other
sees that it was not.
"""

import json
import logging
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qdrant_client import models

from services.retrieve.adapters.catalog import Totals, new_folder, tenant_digest
from services.retrieve.adapters.qdrant import ids
from services.retrieve.adapters.qdrant.chunks import MAX_FACETS, make_indexes, spread
from services.retrieve.adapters.qdrant.connection import Connection
from services.retrieve.adapters.qdrant.dialect import below, equals, has_id, one_of
from services.retrieve.adapters.qdrant.errors import says_exists
from services.retrieve.adapters.qdrant.options import QdrantOptions
from services.retrieve.adapters.qdrant.records import (
    COLLECTION,
    DOCUMENT,
    DROPPED,
    FOLDER,
    FORMAT,
    KIND,
    LEASE,
    MOVED,
    TENANT,
    TOMBSTONE,
    CollectionRow,
    Lease,
    Record,
    collection_payload,
    collection_point,
    collection_row,
    document_of,
    dropped_payload,
    lease_of,
    record_of,
    record_payload,
)
from services.retrieve.ports import CollectionKey, Document, NewCollection
from services.runtime.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    RagmeshError,
    ResourceExhausted,
)

log = logging.getLogger(__name__)

PAGE = 1000
"""Records of one read."""
MAX_LISTED = 64
"""Collections whose list of documents is kept."""
_VECTOR = "none"
_ORDER = models.WriteOrdering.STRONG


@dataclass(frozen=True, slots=True)
class Entry:
    """A current document, briefly."""

    id: str
    access: tuple[str, ...]
    version: int
    chunks: int
    content_hash: str


class Catalog:
    """Records of collections, documents and leases."""

    def __init__(
        self,
        connection: Connection,
        options: QdrantOptions,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._options = options
        self._now = now
        self._name = f"{options.prefix}-catalog"
        self._totals: OrderedDict[str, tuple[str, dict[tuple[str, ...], Totals]]] = OrderedDict()
        self._entries: OrderedDict[str, tuple[str, list[Entry]]] = OrderedDict()
        # A record that a majority has written is read from a majority.
        self._reading: dict[str, Any] = (
            {"consistency": models.ReadConsistencyType.MAJORITY} if options.replicas > 1 else {}
        )

    async def open(self) -> None:
        """Make it, unless it is there.

        Raises:
            FailedPrecondition: DATA_TOO_NEW.
        """
        if not await self._connection.call("collection_exists", self._name):
            # A vector of one number, because records have none to search by.
            vector = models.VectorParams(size=1, distance=models.Distance.DOT)
            try:
                await self._connection.call(
                    "create_collection", self._name, vectors_config={_VECTOR: vector},
                    hnsw_config=models.HnswConfigDiff(m=0), on_disk_payload=True,
                    **spread(self._options, 1),
                )  # fmt: skip
            except Exception as error:
                if not says_exists(error):  # another replica was quicker
                    raise
        await make_indexes(self._connection, self._name, _indexes())
        point = ids.record("format")
        await self._write(
            {point: {KIND: "format", "format": FORMAT}}, mode=models.UpdateMode.INSERT_ONLY
        )
        found = (await self._read([point]))[point]["format"]
        if found > FORMAT:
            raise FailedPrecondition(
                "DATA_TOO_NEW",
                f"The catalogue in Qdrant has format {found}, this version reads up to {FORMAT}; "
                "run the version of ragmesh that wrote it.",
            )

    # Collections

    async def create(self, new: NewCollection, limit: int) -> CollectionRow:
        """Raises: AlreadyExists COLLECTION_EXISTS; ResourceExhausted TOO_MANY_COLLECTIONS."""
        point = collection_point(new.key)
        taken = AlreadyExists(
            "COLLECTION_EXISTS", f"The collection {new.key.name!r} exists.", field="name"
        )
        held = (await self._read([point])).get(point)
        if held is not None and held[KIND] == COLLECTION:
            raise taken
        own = [equals(KIND, COLLECTION), equals(TENANT, tenant_digest(new.key.tenant))]
        if await self._count(own) >= limit:
            raise ResourceExhausted(
                "TOO_MANY_COLLECTIONS", f"A tenant has at most {limit} collections."
            )
        if held is not None:  # the name of one that took another's place
            await self._delete([has_id([point]), equals(KIND, MOVED)])
        folder = new_folder(new.key)
        await self._write(
            {point: collection_payload(new, folder, self._now())},
            mode=models.UpdateMode.INSERT_ONLY,
        )
        row = await self.find(new.key)
        if row.folder != folder:  # another replica was quicker
            raise taken
        return row

    async def find(self, key: CollectionKey) -> CollectionRow:
        """Raises: NotFound COLLECTION_NOT_FOUND."""
        point = collection_point(key)
        found = (await self._read([point])).get(point)
        if found is None or found[KIND] != COLLECTION:
            raise no_collection(key)
        return collection_row(key.tenant, found)

    async def collections(self, tenant: str) -> list[CollectionRow]:
        """All of a tenant, by name."""
        own = [equals(KIND, COLLECTION), equals(TENANT, tenant_digest(tenant))]
        rows = [collection_row(tenant, one) async for one in self._scroll(own)]
        return sorted(rows, key=lambda row: row.facts.key.name)

    async def set_profile(self, row: CollectionRow, profile: str) -> None:
        await self._set([has_id([row.point]), equals(FOLDER, row.folder)], {"profile": profile})

    async def touch(self, row: CollectionRow) -> None:
        """Tell every replica that the collection's documents are others."""
        await self._set(
            [has_id([row.point]), equals(FOLDER, row.folder)], {"changed": uuid.uuid4().hex}
        )

    async def touch_folder(self, folder: str) -> None:
        """The same, for a collection of which only the folder is known."""
        await self._set([equals(KIND, COLLECTION), equals(FOLDER, folder)],
                        {"changed": uuid.uuid4().hex})  # fmt: skip

    async def exists(self, folder: str) -> bool:
        return bool(await self._count([equals(KIND, COLLECTION), equals(FOLDER, folder)]))

    async def drop(self, row: CollectionRow, name: str) -> str:
        """Forget a collection and its documents; returns the record that its points are to go."""
        point = ids.record(DROPPED, row.folder)
        await self._write({point: dropped_payload(row.folder, name, self._now())})
        await self._delete([has_id([row.point]), equals(FOLDER, row.folder)])
        await self.delete_documents(row.folder)
        self._totals.pop(row.folder, None)
        self._entries.pop(row.folder, None)
        return point

    async def move(self, old: CollectionRow, new: CollectionRow, name: str) -> str:
        """Put `new` in the place of `old`, in one write; returns the record as `drop` does.

        Args:
            old: the collection whose name, description and time of creation stay.
            new: the collection whose contents stay.
            name: the Qdrant collection of the chunks of `old`.

        Raises:
            Aborted: COLLECTION_CHANGED, when another replica changed either meanwhile.
        """
        key = old.facts.key
        facts = replace(new.facts, key=key, description=old.facts.description)
        moved = collection_payload(facts, new.folder, old.created_at)
        dropped = ids.record(DROPPED, old.folder)
        gone = {KIND: MOVED, TENANT: moved[TENANT], FOLDER: new.folder, "changed": new.changed}
        as_read: list[Any] = [
            models.Filter(
                must=[
                    has_id([row.point]),
                    equals(FOLDER, row.folder),
                    equals("changed", row.changed),
                ]
            )
            for row in (old, new)
        ]
        writes: dict[str, Mapping[str, Any]] = {
            old.point: moved | {"profile": new.profile, "changed": uuid.uuid4().hex},
            new.point: gone,
            dropped: dropped_payload(old.folder, name, self._now()),
        }
        await self._write(writes, condition=models.Filter(should=as_read))
        found = await self._read([old.point, new.point])
        taken = found.get(old.point, {}).get(FOLDER) == new.folder
        if not taken or found.get(new.point, {}).get(KIND) == COLLECTION:
            await self._undo_move(old, new, dropped)
            raise Aborted("COLLECTION_CHANGED", "The collection was changed meanwhile; try again.")
        await self._delete([has_id([new.point]), equals(KIND, MOVED)])
        self._totals.pop(old.folder, None)
        self._entries.pop(old.folder, None)
        return dropped

    async def _undo_move(self, old: CollectionRow, new: CollectionRow, dropped: str) -> None:
        """Put back what was written of a move of which the other half met a change."""
        await self.forget([dropped])
        for row, other in ((old, new), (new, old)):
            before = collection_payload(row.facts, row.folder, row.created_at)
            before |= {"profile": row.profile, "changed": uuid.uuid4().hex}
            where: list[Any] = [
                has_id([row.point]),
                equals(FOLDER, other.folder) if row is old else equals(KIND, MOVED),
            ]
            await self._write(
                {row.point: before},
                condition=models.Filter(must=where),
                mode=models.UpdateMode.UPDATE_ONLY,
            )

    async def delete_documents(self, folder: str, points: Sequence[str] = ()) -> None:
        """Forget documents of a collection that is gone: these, or all."""
        those = [has_id(points)] if points else []
        await self._delete([equals(FOLDER, folder), one_of(KIND, [DOCUMENT, TOMBSTONE]), *those])

    async def dropped(self, age: float) -> list[tuple[str, str, str]]:
        """Collections whose removal stopped half-way so long ago: record, folder, Qdrant's name."""
        old = [equals(KIND, DROPPED), below("at", self._now() - age)]
        return [
            (ids.record(DROPPED, one[FOLDER]), one[FOLDER], one["name"])
            async for one in self._scroll(old)
        ]

    async def forget(self, points: Sequence[str]) -> None:
        """Delete records."""
        if points:
            await self._delete([has_id(points)])

    async def delete_tenant(self, tenant: str) -> None:
        """Forget all that tells something of a tenant. Leases go when their points have gone."""
        kinds = [COLLECTION, MOVED, DOCUMENT, TOMBSTONE, DROPPED]
        await self._delete([equals(TENANT, tenant_digest(tenant)), one_of(KIND, kinds)])

    # Documents

    async def records(self, points: Iterable[str]) -> dict[str, Record]:
        """The records of documents; an empty one where nothing is recorded."""
        wanted = list(dict.fromkeys(points))
        found: dict[str, Record] = {}
        for batch in ids.batched(wanted, PAGE):
            given = await self._read(batch)
            found.update(
                (one, record_of(given[one]) if one in given else Record()) for one in batch
            )
        return found

    async def replace(
        self, folder: str, changes: Mapping[str, tuple[Record, Record]]
    ) -> dict[str, Record]:
        """Write records where the one before is still there, and read what is there now.

        Args:
            folder: the collection's.
            changes: by point, the record that was read and the one to write.
        """
        now = self._now()
        # One that is not there is inserted whatever the condition says; one that appeared has
        # a revision, and none has 0.
        as_read: list[Any] = [
            models.Filter(must=[has_id([point]), equals("revision", before.revision)])
            for point, (before, _) in changes.items()
        ]
        payloads = {
            point: record_payload(folder, after, now) for point, (_, after) in changes.items()
        }
        await self._write(payloads, condition=models.Filter(should=as_read))
        return await self.records(changes)

    async def current(self, folder: str, versions: Iterable[str]) -> set[str]:
        """Which of these versions are current."""
        wanted = list(versions)
        found: set[str] = set()
        for batch in ids.batched(wanted, PAGE):
            where = [equals(FOLDER, folder), equals(KIND, DOCUMENT), one_of("version", batch)]
            found |= {
                one["version"]
                async for one in self._scroll(where, fields=["version"], page=len(batch))
            }
        return found

    async def documents(self, folder: str, versions: Iterable[str]) -> dict[str, Document]:
        """The documents of those versions that are current."""
        where = [equals(FOLDER, folder), equals(KIND, DOCUMENT), one_of("version", versions)]
        return {one["version"]: document_of(one) async for one in self._scroll(where)}

    async def entries(self, row: CollectionRow) -> list[Entry]:
        """All current documents by id, read again when they have changed."""
        kept = self._entries.get(row.folder)
        if kept is None or kept[0] != row.changed:
            where = [equals(FOLDER, row.folder), equals(KIND, DOCUMENT)]
            fields = ["id", "access", "version", "chunks", "content_hash"]
            entries = [
                Entry(
                    one["id"],
                    tuple(one["access"]),
                    int(one["version"], 16),
                    one["chunks"],
                    one["content_hash"],
                )
                async for one in self._scroll(where, fields=fields)
            ]
            kept = row.changed, sorted(entries, key=lambda one: one.id)
            _keep(self._entries, row.folder, kept)
        return kept[1]

    async def totals(self, row: CollectionRow) -> dict[tuple[str, ...], Totals]:
        """What a collection has, by access list, counted again when it has changed."""
        kept = self._totals.get(row.folder)
        if kept is None or kept[0] != row.changed:
            kept = row.changed, await self._summed([equals(FOLDER, row.folder)])
            _keep(self._totals, row.folder, kept)
        return kept[1]

    async def tenant_totals(self, tenant: str) -> dict[tuple[str, ...], Totals]:
        return await self._summed([equals(TENANT, tenant_digest(tenant))])

    async def _summed(self, where: list[Any]) -> dict[tuple[str, ...], Totals]:
        answer = await self._connection.call(
            "facet", self._name, "summary", exact=True, limit=MAX_FACETS,
            facet_filter=models.Filter(must=[*where, equals(KIND, DOCUMENT)]), **self._reading,
        )  # fmt: skip
        counts = {str(hit.value): hit.count for hit in answer.hits}
        if len(counts) >= MAX_FACETS:  # there may be more: then one after the other
            every = self._scroll([*where, equals(KIND, DOCUMENT)], fields=["summary"])
            counts = Counter([one["summary"] async for one in every])
        summed: dict[tuple[str, ...], Totals] = {}
        for text, number in counts.items():
            access, languages = json.loads(text)
            totals = summed.setdefault(tuple(access), Totals())
            totals.add(1, sum(languages.values()), languages, number)
        return summed

    # Leases

    async def lease(self, leases: Iterable[Lease]) -> None:
        """Say that versions are being written."""
        now = self._now()
        await self._write({one.point: one.payload(now) for one in leases})

    async def renew(self, leases: Iterable[Lease]) -> None:
        """Say that they still are; one that is gone stays gone."""
        await self._set([has_id(one.point for one in leases)], {"at": self._now()})

    async def expired(self, age: float) -> list[Lease]:
        """Leases that nobody has renewed for so long."""
        old = [equals(KIND, LEASE), below("at", self._now() - age)]
        return [lease_of(one) async for one in self._scroll(old)]

    async def bury_tombstones(self, age: float) -> None:
        """Forget documents that were deleted so long ago."""
        await self._delete([equals(KIND, TOMBSTONE), below("at", self._now() - age)])

    # Parts

    async def _read(self, points: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        records = await self._connection.call(
            "retrieve", self._name, list(points), with_payload=True, **self._reading
        )
        return {str(one.id): one.payload or {} for one in records}

    async def _scroll(
        self, where: Sequence[Any], *, fields: list[str] | None = None, page: int = PAGE
    ) -> AsyncIterator[Mapping[str, Any]]:
        offset: Any = None
        while True:
            records, offset = await self._connection.call(
                "scroll", self._name, models.Filter(must=list(where)), limit=page, offset=offset,
                with_payload=True if fields is None else fields, **self._reading,
            )  # fmt: skip
            for one in records:
                yield one.payload or {}
            if offset is None:
                return

    async def _count(self, where: Sequence[Any]) -> int:
        answer = await self._connection.call("count", self._name, models.Filter(must=list(where)))
        return int(answer.count)

    async def _write(
        self,
        payloads: Mapping[str, Mapping[str, Any]],
        *,
        condition: models.Filter | None = None,
        mode: models.UpdateMode | None = None,
    ) -> None:
        points = [
            models.PointStruct(id=point, vector={_VECTOR: [1.0]}, payload=dict(payload))
            for point, payload in payloads.items()
        ]
        await self._connection.call(
            "upsert", self._name, points, wait=True, ordering=_ORDER, update_filter=condition,
            update_mode=mode,
        )  # fmt: skip

    async def _set(self, where: list[Any], payload: Mapping[str, Any]) -> None:
        await self._connection.call(
            "set_payload", self._name, payload, models.Filter(must=where), wait=True,
            ordering=_ORDER,
        )  # fmt: skip

    async def _delete(self, where: list[Any]) -> None:
        selector = models.FilterSelector(filter=models.Filter(must=where))
        await self._connection.call("delete", self._name, selector, wait=True, ordering=_ORDER)


def no_collection(key: CollectionKey) -> RagmeshError:
    return NotFound(
        "COLLECTION_NOT_FOUND",
        f"The collection {key.name[:100]!r} does not exist.",
        field="collection",
    )


def _indexes() -> dict[str, Any]:
    """Fields that records are found by."""
    keyword = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, enable_hnsw=False)
    return {
        KIND: keyword, TENANT: keyword, FOLDER: keyword, "version": keyword, "summary": keyword,
        "revision": models.PayloadSchemaType.INTEGER, "at": models.PayloadSchemaType.FLOAT,
    }  # fmt: skip


def _keep(kept: OrderedDict[str, Any], folder: str, value: object) -> None:
    """Keep a value, and the latest of the others."""
    kept[folder] = value
    kept.move_to_end(folder)
    while len(kept) > MAX_LISTED:
        kept.popitem(last=False)
