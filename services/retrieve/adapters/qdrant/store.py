"""`Store` over Qdrant: ``grpc://``, ``grpcs://``, ``http://``, ``https://``, ``qdrant+local://``."""

import asyncio
import bisect
import contextvars
import itertools
import logging
import random
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from services.retrieve.access import id_taken, may_read
from services.retrieve.adapters.catalog import (
    Totals,
    describe,
    not_found,
    restricted,
    tenant_digest,
)
from services.retrieve.adapters.points import DENSE, stored_chunk
from services.retrieve.adapters.qdrant import ids
from services.retrieve.adapters.qdrant.catalog import Catalog
from services.retrieve.adapters.qdrant.chunks import Chunks, dense_of
from services.retrieve.adapters.qdrant.connection import Connection, Local, Remote
from services.retrieve.adapters.qdrant.errors import lost
from services.retrieve.adapters.qdrant.options import MEMORY, QdrantOptions, parse
from services.retrieve.adapters.qdrant.records import CollectionRow, document_point
from services.retrieve.adapters.qdrant.searching import Searcher
from services.retrieve.adapters.qdrant.writing import ATTEMPTS, Writer
from services.retrieve.ports import (
    Attributes,
    Candidate,
    Chunk,
    Collection,
    CollectionKey,
    Document,
    EncodedChunk,
    FieldTerms,
    IndexedChunk,
    NewCollection,
    Published,
    SparseVector,
    StoredChunk,
    StoreQuery,
    TenantContents,
)
from services.runtime.deadlines import set_call_deadline
from services.runtime.errors import Aborted, RagmeshError, Unavailable

log = logging.getLogger(__name__)

PROBE_SECONDS = 2.0
MISSES = 2
"""Probes without an answer after which Qdrant counts as away."""
_MAX_WAIT_SECONDS = 10.0


class QdrantStore:
    """Collections in Qdrant. Any number of replicas may work over one server or cluster."""

    def __init__(self, connection: Connection, options: QdrantOptions, backend: str) -> None:
        self._connection = connection
        self._options = options
        self._backend = backend
        self._chunks = Chunks(connection, options)
        self._catalog = Catalog(connection, options)
        self._writer = Writer(self._catalog, self._chunks, lease=options.lease)
        self._searcher = Searcher(self._catalog, self._chunks, self._writer)
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def backend(self) -> str:
        return self._backend

    async def start(self) -> None:
        """Return when Qdrant answers; waits for one that does not yet.

        Raises:
            FailedPrecondition: ENGINE_TOO_OLD, ENGINE_ACCESS_DENIED, DATA_IN_USE or DATA_TOO_NEW.
        """
        wait = 0.5
        while True:
            try:
                await self._connection.open()
                await self._catalog.open()
                break
            except Unavailable as error:
                log.warning("waiting for Qdrant", extra={"reason": error.reason})
                await asyncio.sleep(wait)
                wait = min(2 * wait, _MAX_WAIT_SECONDS)
        if self._connection.local:
            await self._writer.sweep(-1.0)  # nobody else writes here
        self._keeper = asyncio.create_task(self._keep(), context=contextvars.Context())

    async def aclose(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.close()

    async def availability(self) -> AsyncIterator[bool]:
        missed = 0
        if self._connection.local:
            await asyncio.Event().wait()  # it works as long as the process does
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await self._connection.open()
            except RagmeshError as error:
                missed += 1
                if missed == MISSES:
                    log.warning("Qdrant is away", extra={"reason": error.reason})
                    yield False
            else:
                if missed >= MISSES:
                    log.info("Qdrant is back")
                    yield True
                missed = 0

    async def _keep(self) -> None:
        """Renew leases, and sweep now and then, each replica at its own moments."""
        every = self._options.lease / 6
        for turn in itertools.count(1):
            await asyncio.sleep(every * random.uniform(0.8, 1.2))  # noqa: S311
            try:
                await self._writer.renew()
                if turn % 2 == 0:
                    await self._writer.sweep(self._options.lease)
            except RagmeshError as error:
                log.warning("keeping Qdrant tidy failed", extra={"reason": error.reason})

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Carry on without whoever asked, and without their deadline."""

        async def carry_out() -> None:
            try:
                await work
            except RagmeshError as error:  # the lease has it done later
                log.warning("tidying up failed", extra={"reason": error.reason})

        task = asyncio.create_task(carry_out(), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Collections

    async def create_collection(self, collection: NewCollection, limit: int) -> Collection:
        name = self._chunks.name(collection.encoder, collection.dimensions)
        await self._chunks.ensure(name, collection.dimensions)
        return describe(await self._catalog.create(collection, limit), Totals(), 0)

    async def get_collection(self, key: CollectionKey, attributes: Attributes = ()) -> Collection:
        return await self._described(await self._row(key), attributes)

    async def _described(self, row: CollectionRow, attributes: Attributes) -> Collection:
        totals = await self._catalog.totals(row)
        readable = Totals()
        for access, part in totals.items():
            if may_read(access, attributes):
                readable.add(part.documents, part.chunks, part.languages, 1)
        return describe(row, readable, sum(part.chunks for part in totals.values()))

    async def list_collections(
        self, tenant: str, after: str, limit: int, attributes: Attributes = ()
    ) -> Sequence[Collection]:
        rows = [
            row for row in await self._catalog.collections(tenant) if row.facts.key.name > after
        ]
        return await asyncio.gather(*(self._described(row, attributes) for row in rows[:limit]))

    async def delete_collection(self, key: CollectionKey, attributes: Attributes = ()) -> int:
        row = await self._row(key)
        totals = await self._unrestricted(row, attributes)
        await self._drop(row)
        return sum(part.documents for part in totals.values())

    async def replace_collection(
        self, key: CollectionKey, by: CollectionKey, attributes: Attributes = ()
    ) -> None:
        old, new = await self._row(key), await self._row(by)
        await self._unrestricted(old, attributes)
        held, other = await asyncio.gather(self._catalog.entries(old), self._catalog.entries(new))
        if [(one.id, one.content_hash) for one in held] != [
            (one.id, one.content_hash) for one in other
        ]:
            raise Aborted("COLLECTION_CHANGED", "The collection was changed meanwhile; try again.")
        self._searcher.forget(key)
        self._searcher.forget(by)
        point = await self._catalog.move(old, new, self._name(old))
        await self._catalog.delete_documents(old.folder)
        await self._chunks.delete_folder(self._name(old), old.folder)
        await self._catalog.forget([point])

    async def _unrestricted(
        self, row: CollectionRow, attributes: Attributes
    ) -> Mapping[tuple[str, ...], Totals]:
        """What a collection has. Raises: PermissionDenied COLLECTION_RESTRICTED."""
        totals = await self._catalog.totals(row)
        if not all(may_read(access, attributes) for access in totals):
            raise restricted()
        return totals

    async def _drop(self, row: CollectionRow) -> None:
        self._searcher.forget(row.facts.key)
        name = self._chunks.name(row.facts.encoder, row.facts.dimensions)
        point = await self._catalog.drop(row, name)
        await self._chunks.delete_folder(name, row.folder)
        await self._catalog.forget([point])

    async def tenant_contents(self, tenant: str) -> TenantContents:
        rows = await self._catalog.collections(tenant)
        totals = (await self._catalog.tenant_totals(tenant)).values()
        folders = await self._chunks.folders(tenant_digest(tenant))
        return TenantContents(
            len(rows),
            sum(one.documents for one in totals),
            sum(one.chunks for one in totals),
            1 + len(folders) if folders else 0,
        )

    async def delete_tenant(self, tenant: str) -> TenantContents:
        removed = await self.tenant_contents(tenant)
        for row in await self._catalog.collections(tenant):
            await self._drop(row)
        await self._chunks.delete_tenant(tenant_digest(tenant))
        await self._catalog.delete_tenant(tenant)
        return removed

    # Documents

    async def check_documents(
        self,
        key: CollectionKey,
        versions: Sequence[tuple[str, str]],
        attributes: Attributes = (),
    ) -> Sequence[tuple[str, int]]:
        row = await self._row(key)
        points = {one: document_point(row.folder, one) for one, _ in versions}
        records = await self._catalog.records(points.values())
        found = []
        for document_id, content_hash in versions:
            document = records[points[document_id]].document
            if document is None:
                continue
            if not may_read(document.access, attributes):
                raise id_taken(document_id)
            if document.content_hash == content_hash:
                found.append((document_id, document.chunks))
        return found

    async def get_document(
        self, key: CollectionKey, document_id: str, attributes: Attributes = ()
    ) -> Document:
        return (await self._current(await self._row(key), document_id, attributes))[1]

    async def list_documents(
        self, key: CollectionKey, after: str, limit: int, attributes: Attributes = ()
    ) -> Sequence[Document]:
        row = await self._row(key)
        entries = await self._catalog.entries(row)
        start = bisect.bisect_right(entries, after, key=lambda one: one.id)
        readable = (one for one in entries[start:] if may_read(one.access, attributes))
        points = [document_point(row.folder, one.id) for one in itertools.islice(readable, limit)]
        records = await self._catalog.records(points)
        documents = (records[point].document for point in points)
        return [one for one in documents if one is not None and may_read(one.access, attributes)]

    async def list_chunks(
        self,
        key: CollectionKey,
        document_id: str,
        start: int,
        limit: int,
        attributes: Attributes = (),
    ) -> Sequence[StoredChunk]:
        row = await self._row(key)
        version, document = await self._current(row, document_id, attributes)
        stop = min(start + limit, document.chunks)
        places = [ids.position(version, index) for index in range(start, stop)]
        found = await self._chunks.read(self._name(row), places)
        return [
            stored_chunk(document, ids.index_of(place), found[place].payload or {})
            for place in places
            if place in found
        ]

    async def read_document(
        self,
        key: CollectionKey,
        document_id: str,
        start: int,
        limit: int,
        attributes: Attributes = (),
    ) -> tuple[Document, Sequence[IndexedChunk]]:
        row = await self._row(key)
        for _ in range(ATTEMPTS):
            version, document = await self._current(row, document_id, attributes)
            stop = min(start + limit, document.chunks)
            places = [ids.position(version, index) for index in range(start, stop)]
            found = await self._indexed(row, places)
            if len(found) == len(places):  # else it was replaced meanwhile
                return document, found
        raise lost()

    async def delete_document(
        self, key: CollectionKey, document_id: str, attributes: Attributes = ()
    ) -> int:
        return await self._writer.delete(await self._row(key), document_id, attributes)

    # Writing

    async def stage(
        self,
        key: CollectionKey,
        documents: Sequence[tuple[str, Document]],
        chunks: Sequence[EncodedChunk],
        attributes: Attributes = (),
    ) -> None:
        await self._writer.stage(await self._row(key), documents, chunks, attributes)

    async def publish(
        self,
        key: CollectionKey,
        tokens: Sequence[str],
        removing: Sequence[tuple[str, str]] = (),
    ) -> Sequence[Published]:
        row = await self._row(key)
        # Shielded: a commit is carried to its end, and its old chunks away, whoever leaves.
        unhurried = contextvars.copy_context()
        unhurried.run(set_call_deadline, None)
        work = asyncio.create_task(self._writer.publish(row, tokens, removing), context=unhurried)
        return await asyncio.shield(work)

    def discard(self, key: CollectionKey, tokens: Sequence[str]) -> None:
        if staged := self._writer.take(tokens):
            self._later(self._writer.remove(staged))

    # Reading

    async def search(self, key: CollectionKey, query: StoreQuery) -> Sequence[Candidate]:
        return await self._searcher.search(key, query)

    async def term_weights(self, key: CollectionKey, terms: Sequence[int]) -> Sequence[float]:
        row = await self._row(key)
        if not terms:
            return []
        return await self._chunks.idf(self._name(row), row.folder, terms)

    # Learning

    async def sample(self, key: CollectionKey, limit: int, seed: int) -> Sequence[IndexedChunk]:
        row = await self._row(key)
        entries = sorted(await self._catalog.entries(row), key=lambda one: one.version)
        ends = list(itertools.accumulate(one.chunks for one in entries))
        total = ends[-1] if ends else 0
        drawn = random.Random(seed).sample(range(total), min(limit, total))  # noqa: S311
        places = []
        for number in sorted(drawn):
            entry = bisect.bisect_right(ends, number)
            index = number - (ends[entry] - entries[entry].chunks)
            places.append(ids.position(entries[entry].version, index))
        return await self._indexed(row, places)

    async def scan(self, key: CollectionKey, after: int, limit: int) -> Sequence[IndexedChunk]:
        row = await self._row(key)
        entries = sorted(await self._catalog.entries(row), key=lambda one: one.version)
        start = bisect.bisect_left(entries, ids.version_of(after), key=lambda one: one.version)
        places = (
            place
            for one in entries[start:]
            for place in ids.positions(one.version, one.chunks)
            if place > after
        )
        while batch := list(itertools.islice(places, limit)):
            if found := await self._indexed(row, batch):
                return found  # else all of these were replaced meanwhile; there may be more
        return []

    async def _indexed(self, row: CollectionRow, places: Sequence[int]) -> list[IndexedChunk]:
        records = await self._chunks.read(self._name(row), places, [DENSE])
        found = []
        for place in places:
            if place not in records:
                continue
            one: Any = records[place].payload
            text = one["text"]
            chunk = Chunk(
                ids.index_of(place), text, one.get("normalized_text", text), one["heading"],
                one.get("page"), one["language"],
            )  # fmt: skip
            found.append(IndexedChunk(place, one["title"], chunk, dense_of(records[place])))
        return found

    async def replace_sparse(
        self, key: CollectionKey, vectors: Sequence[tuple[int, SparseVector]]
    ) -> None:
        row = await self._row(key)
        await self._chunks.reweigh(self._name(row), vectors)

    async def add_words(
        self, key: CollectionKey, terms: Sequence[tuple[int, FieldTerms]], *, last: bool
    ) -> None:
        """Nothing to do: Qdrant's sparse arm reads vectors."""

    async def set_profile(self, key: CollectionKey, generation: str, profile: str) -> None:
        row = await self._row(key)
        if row.folder == generation:
            await self._catalog.set_profile(row, profile)

    # Parts

    async def _row(self, key: CollectionKey) -> CollectionRow:
        row = await self._catalog.find(key)
        self._searcher.remember(row)
        return row

    def _name(self, row: CollectionRow) -> str:
        return self._chunks.name(row.facts.encoder, row.facts.dimensions)

    async def _current(
        self, row: CollectionRow, document_id: str, attributes: Attributes
    ) -> tuple[int, Document]:
        """A document's version and facts. Raises: NotFound DOCUMENT_NOT_FOUND."""
        point = document_point(row.folder, document_id)
        record = (await self._catalog.records([point]))[point]
        if record.document is None or not may_read(record.document.access, attributes):
            raise not_found()
        return record.version, record.document


class LocalQdrantStore(QdrantStore):
    """The client's local mode: exact and in Python, for some thousand chunks and for tests."""

    def __init__(self, location: str, data: Path, *, open_shards: int = 64) -> None:
        """Args:
        location: what follows ``qdrant+local://``: a folder, or ``:memory:``; empty for
            ``qdrant`` under `data`.
        data: where everything durable lives.
        open_shards: not used: the client holds all collections at once.
        """
        root = Path(location) if location else data / "qdrant"
        connection = Local(None if location == MEMORY else root)
        super().__init__(connection, QdrantOptions(), "qdrant-local")


class RemoteQdrantStore(QdrantStore):
    """A server or a cluster."""

    def __init__(self, url: str, options: QdrantOptions) -> None:
        """Args:
        url: ``grpc://HOST:PORT`` and so on.
        options: how to reach it and how to make collections.

        Raises:
            FailedPrecondition: VECTOR_URL_INVALID.
        """
        super().__init__(Remote(parse(url), options), options, "qdrant")
