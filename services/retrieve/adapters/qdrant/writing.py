"""How documents come and go, with several replicas at it and any of them dying anywhere.

1. Each document gets a version, and a lease that its writer renews. Its chunks are written.
2. Its record is replaced on the condition that it is the one that was read: that is the moment at
   which the document changes. Searches look up which versions are current.
3. The chunks of the version before are deleted, then the lease.

Where a writer dies, its lease runs out, and any replica removes what is not current. Before that
it writes into the document's record that the version is given up, so a writer that was only
paused cannot publish chunks that are gone.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.retrieve.access import id_taken, may_read
from services.retrieve.adapters.catalog import document_changed, not_found
from services.retrieve.adapters.qdrant import ids
from services.retrieve.adapters.qdrant.catalog import Catalog, no_collection
from services.retrieve.adapters.qdrant.chunks import Chunks
from services.retrieve.adapters.qdrant.records import (
    CollectionRow,
    Lease,
    Record,
    document_point,
)
from services.retrieve.ports import (
    Attributes,
    Document,
    EncodedChunk,
    Published,
    PublishStatus,
)
from services.runtime.errors import Aborted, NotFound, RagmeshError, Unavailable

log = logging.getLogger(__name__)

ATTEMPTS = 16
"""How often a record is read and replaced while others replace it too."""
DROPPED_SECONDS = 60.0
"""After so long, who deletes a collection is taken for dead."""
TOMBSTONE_SECONDS = 24 * 3600.0


@dataclass(slots=True)
class Staged:
    """A document that is being written."""

    row: CollectionRow
    lease: Lease
    document: Document
    attributes: Attributes
    """Of who stages it: it may only replace what it may read."""
    renewed: float
    """When the lease was, by the clock that only goes forwards."""
    written: set[int] = field(default_factory=set)
    languages: Counter[str] = field(default_factory=Counter)
    tried: bool = False
    """Whether it may be current although nobody was told."""


class Writer:
    """One replica's writing."""

    def __init__(
        self,
        catalog: Catalog,
        chunks: Chunks,
        *,
        lease: float,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        catalog: the records.
        chunks: the points.
        lease: seconds after which a lease that is not renewed has run out.
        now: the clock of the documents' times.
        clock: the clock of the leases.
        """
        self._catalog = catalog
        self._chunks = chunks
        self._lease = lease
        self._now = now
        self._clock = clock
        self._staged: dict[str, Staged] = {}

    def hidden(self, folder: str) -> set[str]:
        """Versions that this replica is writing."""
        staged = (one.lease for one in self._staged.values())
        return {ids.text_of(lease.version) for lease in staged if lease.folder == folder}

    async def stage(
        self,
        row: CollectionRow,
        documents: Sequence[tuple[str, Document]],
        chunks: Sequence[EncodedChunk],
        attributes: Attributes,
    ) -> None:
        name = self._name(row)
        begun = self._clock()
        opened = {
            token: Staged(row, self._new_lease(row, name, document), document, attributes, begun)
            for token, document in documents
        }
        if opened:
            await self._catalog.lease(one.lease for one in opened.values())
            self._staged.update(opened)
        pairs = [(self._staged_of(one.token), one) for one in chunks]
        if not pairs:
            return
        await self._chunks.write(
            name, row.folder, [(one.lease.version, one.document, chunk) for one, chunk in pairs]
        )
        for one, chunk in pairs:
            one.written.add(chunk.chunk.index)
            one.languages[chunk.chunk.language] += 1

    def _new_lease(self, row: CollectionRow, name: str, document: Document) -> Lease:
        point = document_point(row.folder, document.id)
        return Lease(ids.new_version(), row.folder, point, name)

    async def publish(
        self,
        row: CollectionRow,
        tokens: Sequence[str],
        removing: Sequence[tuple[str, str]] = (),
    ) -> list[Published]:
        staged = {token: self._staged_of(token) for token in tokens}
        for one in staged.values():
            if len(one.written) != one.document.chunks:
                raise ValueError("a document is published before all of its chunks are staged")
            if one.lease.folder != row.folder:
                raise no_collection(row.facts.key)
        outcomes: dict[str, Published] = {}
        dead: dict[str, set[int]] = {token: set() for token in tokens}
        going = dict(removing)
        gone: list[Lease] = []
        for _ in range(ATTEMPTS):
            pending = {token: one for token, one in staged.items() if token not in outcomes}
            if not pending and not going:
                break
            gone += await self._attempt(row, pending, outcomes, dead, going)
            going = {}
        else:
            raise _contended()
        await asyncio.gather(
            self._settle(row, [one.lease.record for one in staged.values()]),
            self._free(
                [*(one.lease for one in staged.values()), *gone],
                {one.version for one in gone}.union(*dead.values()),
            ),
        )
        for token in tokens:
            self._staged.pop(token, None)
        return [outcomes[token] for token in tokens]

    async def _attempt(
        self,
        row: CollectionRow,
        pending: Mapping[str, Staged],
        outcomes: dict[str, Published],
        dead: dict[str, set[int]],
        going: Mapping[str, str],
    ) -> list[Lease]:
        """Try to replace the records of the first pending token of each document.

        With them go the documents of `going`, by id with their content hash; returns leases of
        these, under which their chunks are to be removed.
        """
        first = {one.lease.record: token for token, one in reversed(list(pending.items()))}
        leaving = {document_point(row.folder, one): one for one in going}
        records = await self._catalog.records([*first, *leaving])
        changes: dict[str, tuple[Record, Record]] = {}
        for point, document_id in leaving.items():
            held = records[point].document
            if held is None or held.content_hash != going[document_id]:
                raise document_changed(document_id)
            changes[point] = records[point], records[point].deleted()
        now = self._now()
        for point, token in first.items():
            one, before = pending[token], records[point]
            if point in leaving:  # it goes, and comes again in the same moment
                before = replace(before, document=None, languages=None)
            lease, old = one.lease, before.document
            if lease.version in before.buried or self._clock() - one.renewed > self._lease / 2:
                raise _given_up()
            if old is not None and not may_read(old.access, one.attributes):
                raise id_taken(old.id)  # its list came while this one was being written
            if old is not None and old.content_hash == one.document.content_hash:
                outcomes[token] = Published(old.id, old.chunks, PublishStatus.UNCHANGED.value)
                dead[token] = {lease.version}
                continue
            created = now if old is None else old.created_at
            document = replace(
                one.document,
                created_at=one.document.created_at or created,
                updated_at=one.document.updated_at or now,
            )
            one.tried = True
            changes[point] = before, before.succeeded(lease.version, document, one.languages)
        if not changes:
            return []
        leases = [
            Lease(records[point].version, row.folder, point, self._name(row)) for point in leaving
        ]
        if leases:  # should this replica die after the next step, they have the chunks removed
            await self._catalog.lease(leases)
        after = await self._catalog.replace(row.folder, changes)
        for point, document_id in leaving.items():
            if after[point].version == records[point].version:
                await self._undo(row, changes, after)
                raise document_changed(document_id)
        for point, (before, _) in changes.items():
            if point not in first:
                continue
            one = pending[first[point]]
            if not after[point].knows(one.lease.version):
                continue  # another replica was first
            known = before.document is not None
            status = PublishStatus.REPLACED if known else PublishStatus.INDEXED
            outcomes[first[point]] = Published(one.document.id, one.document.chunks, status.value)
            dead[first[point]] = {before.version} - {0}
        return leases

    async def _undo(
        self,
        row: CollectionRow,
        changes: Mapping[str, tuple[Record, Record]],
        after: Mapping[str, Record],
    ) -> None:
        """Take back what was written beside a removal that met another content."""
        back = {
            point: (after[point], after[point].undone(before))
            for point, (before, wanted) in changes.items()
            if after[point].revision == wanted.revision and after[point].version == wanted.version
        }
        if back:
            await self._catalog.replace(row.folder, back)
            await self._catalog.touch(row)

    async def _settle(self, row: CollectionRow, points: Sequence[str]) -> None:
        """Tell all replicas, and take back what was published into a collection that is gone."""
        await self._catalog.touch(row)
        try:
            fresh = await self._catalog.find(row.facts.key)
        except NotFound:
            await self._catalog.delete_documents(row.folder, points)
            raise
        if fresh.folder != row.folder:
            await self._catalog.delete_documents(row.folder, points)
            raise no_collection(row.facts.key)

    async def _free(self, leases: Sequence[Lease], versions: set[int]) -> None:
        """Delete chunks that are not current any more, then the leases of those who replaced."""
        if leases:
            await self._chunks.delete_versions(leases[0].name, leases[0].folder, versions)
            await self._catalog.forget([one.point for one in leases])

    async def delete(self, row: CollectionRow, document_id: str, attributes: Attributes) -> int:
        """Raises: NotFound DOCUMENT_NOT_FOUND."""
        point = document_point(row.folder, document_id)
        for _ in range(ATTEMPTS):
            before = (await self._catalog.records([point]))[point]
            document = before.document
            if document is None or not may_read(document.access, attributes):
                raise not_found()
            # Should this replica die after the next step, the lease has the chunks removed.
            lease = Lease(before.version, row.folder, point, self._name(row))
            await self._catalog.lease([lease])
            after = await self._catalog.replace(row.folder, {point: (before, before.deleted())})
            if after[point].version != before.version:
                await self._catalog.touch(row)
                await self._free([lease], {before.version})
                return document.chunks
        raise _contended()

    def take(self, tokens: Sequence[str]) -> list[Staged]:
        """Forget staged documents; `remove` then deletes what was written of them."""
        return [self._staged.pop(token) for token in tokens if token in self._staged]

    async def remove(self, staged: Sequence[Staged]) -> None:
        """Delete what was written of documents that will not be published."""
        for one in staged:
            if one.tried:
                await self._bury(one.lease)
            else:
                await self._free([one.lease], {one.lease.version})

    # Keeping and sweeping

    async def renew(self) -> None:
        """Renew the leases of what is being written here."""
        staged = list(self._staged.values())
        if staged:
            begun = self._clock()
            await self._catalog.renew([one.lease for one in staged])
            for one in staged:
                one.renewed = begun

    async def sweep(self, age: float) -> int:
        """Remove what writers left that died at least so many seconds ago; returns how much."""
        swept = 0
        own = {one.lease.version for one in self._staged.values()}
        for lease in await self._catalog.expired(age):
            if lease.version not in own:
                swept += await self._bury(lease)
        for point, folder, name in await self._catalog.dropped(min(age, DROPPED_SECONDS)):
            if not await self._catalog.exists(folder):  # else a move was taken back
                await self._catalog.delete_documents(folder)
                await self._chunks.delete_folder(name, folder)
            await self._catalog.forget([point])
            swept += 1
        await self._catalog.bury_tombstones(TOMBSTONE_SECONDS)
        if swept:
            log.info("removed what writers left that died", extra={"leases": swept})
        return swept

    async def _bury(self, lease: Lease) -> bool:
        record = (await self._catalog.records([lease.record]))[lease.record]
        version = lease.version
        pending = not record.knows(version) and version not in record.buried
        if pending and await self._catalog.exists(lease.folder):
            change = {lease.record: (record, record.without(version))}
            record = (await self._catalog.replace(lease.folder, change))[lease.record]
            if version not in record.buried and not record.knows(version):
                return False  # the record changed meanwhile: the next sweep reads it again
        dead = {version, *record.history} - {record.version}
        await self._free([lease], dead)
        await self._catalog.touch_folder(lease.folder)
        return True

    # Parts

    def _name(self, row: CollectionRow) -> str:
        return self._chunks.name(row.facts.encoder, row.facts.dimensions)

    def _staged_of(self, token: str) -> Staged:
        try:
            return self._staged[token]
        except KeyError:
            raise _given_up() from None


def _given_up() -> RagmeshError:
    return Unavailable(
        "ENGINE_UNAVAILABLE",
        "The document was given up while it was being indexed; try again.",
        retry_after=1.0,
    )


def _contended() -> RagmeshError:
    return Aborted(
        "DOCUMENT_CONTENDED",
        "Others keep replacing the document at the same moment; try again.",
        retry_after=1.0,
    )
