"""Making a collection anew with the running encoder and analyser, while the old one answers.

The new one grows under a hidden name and takes the old one's place in one commit of the store,
which refuses that unless both hold the same documents. So nothing that is written meanwhile is
lost: it is copied in another pass. From the third pass on writes are held, for as long as the
difference takes to copy. What a call leaves behind, however it ends, the next one goes on with.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from services.retrieve.access import EVERYTHING
from services.retrieve.core import Retrieval, hidden, visible
from services.retrieve.exporting import PAGE_DOCUMENTS, frames
from services.retrieve.indexing import Frame, Indexing, Origin
from services.retrieve.learning import SAMPLE_CHUNKS, by_language
from services.retrieve.ports import (
    Attributes,
    Collection,
    CollectionKey,
    Document,
    NewCollection,
    Published,
)
from services.runtime.errors import Aborted, AlreadyExists, NotFound, PermissionDenied

FREE_PASSES = 2
"""Passes during which documents may still be written."""
_TELL_SECONDS = 0.2
_ALL: Attributes = (EVERYTHING,)
_NO_LIMIT = 1 << 30
"""Of collections in a tenant: one that takes another's place is none more."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is."""

    documents: int
    """In the new collection."""
    total: int
    """In the old one."""
    embedded: int = 0
    """Chunks that this call embedded."""
    full: int = 0
    """Of these, those that fill what the encoder reads."""
    collection: Collection | None = None
    """At the end: as it is then."""
    reindexed: bool = False
    """At the end: whether it was made anew."""


class Reindexing:
    """One collection, once."""

    def __init__(
        self,
        retrieval: Retrieval,
        tenant: str,
        name: str,
        *,
        force: bool = False,
        attributes: Attributes = (),
    ) -> None:
        """Args:
        force: embed also what the running encoder has embedded.
        """
        self._retrieval = retrieval
        self._store = retrieval.store
        self._old = visible(tenant, name)
        self._new = hidden(tenant, name)
        self._force = force
        self._attributes = attributes
        self._progress = Progress(0, 0)
        self._told = 0.0

    async def run(self) -> AsyncIterator[Progress]:
        """Do it, and say how far it is every now and then.

        Raises:
            NotFound: COLLECTION_NOT_FOUND.
            PermissionDenied: COLLECTION_RESTRICTED, for documents that the caller may not read.
            Aborted: REINDEX_RUNNING.
        """
        seen = await self._store.get_collection(self._old, self._attributes)
        if seen.chunks != seen.all_chunks:
            raise PermissionDenied(
                "COLLECTION_RESTRICTED",
                "The collection holds documents that the token may not read, so it may not make "
                "it anew.",
                field="collection",
            )
        old = await self._store.get_collection(self._old, _ALL)
        wanted = self._wanted(old)
        if not self._force and _same(old, wanted):
            yield Progress(old.documents, old.documents, collection=seen)
            return
        with ExitStack() as held:
            held.enter_context(self._retrieval.reindexing(self._old))
            await self._begin(wanted)
            passes = 0
            while True:
                async for progress in self._copy(old):
                    yield progress
                await self._retrieval.learning.settled(self._new)
                try:
                    await self._store.replace_collection(self._old, self._new, self._attributes)
                    break
                except Aborted:
                    passes += 1
                    if passes == FREE_PASSES:
                        held.enter_context(self._retrieval.hold(self._old))
        done = await self._store.get_collection(self._old, self._attributes)
        yield replace(
            self._progress,
            documents=done.documents,
            total=done.documents,
            collection=done,
            reindexed=True,
        )

    def _wanted(self, old: Collection) -> NewCollection:
        facts = self._retrieval.encoder.facts
        most = facts.max_tokens - facts.special_tokens
        tokens = min(old.chunk_tokens, most)
        # The description is the old one's in the end; until then it says how this was begun.
        return NewCollection(
            self._new, f"reindex force={self._force}", facts.id, facts.dimensions,
            self._retrieval.analyzer.id, facts.tokenizer_id, tokens,
            min(old.chunk_overlap, tokens // 2), facts.languages, facts.normalizes,
        )  # fmt: skip

    async def _begin(self, wanted: NewCollection) -> None:
        """Make the new collection, or take up the one that an earlier call has begun."""
        try:
            begun = await self._store.get_collection(self._new, _ALL)
            if _same(begun, wanted) and begun.description == wanted.description:
                return
            await self._store.delete_collection(self._new, _ALL)
        except NotFound:
            pass  # nothing was begun
        try:
            await self._store.create_collection(wanted, _NO_LIMIT)
        except AlreadyExists:
            # By another replica, in this moment.
            raise Aborted("REINDEX_RUNNING", "The collection is being made anew already.") from None
        # What comes first need not be as long as the rest.
        sample = await self._store.sample(self._old, SAMPLE_CHUNKS, seed=0)
        await self._retrieval.learning.begin(self._new, by_language(sample))

    async def _copy(self, old: Collection) -> AsyncIterator[Progress]:
        """Give the new collection the documents of the old one, as far as they differ."""
        origin = Origin("" if self._force else old.encoder, old.analyzer, old.profile)
        started = await self._counted()
        yield self._tell(started)
        indexing = Indexing(self._retrieval, self._new.tenant, self._new.name, _ALL, origin)
        embedded, full = self._progress.embedded, self._progress.full
        added = 0
        try:
            async for outcome in indexing.run(self._missing()):
                added += isinstance(outcome, Published) and outcome.status == "indexed"
                self._progress = replace(
                    self._progress,
                    documents=started.documents + added,
                    embedded=embedded + indexing.embedded_chunks,
                    full=full + indexing.full_chunks,
                )
                if time.monotonic() - self._told >= _TELL_SECONDS:
                    yield self._tell(self._progress)
        except Aborted:
            pass  # a document changed under the copy; the next pass has it
        await self._remove_deleted()
        yield self._tell(await self._counted())

    def _tell(self, progress: Progress) -> Progress:
        self._told = time.monotonic()
        self._progress = progress
        return progress

    async def _counted(self) -> Progress:
        old = await self._store.get_collection(self._old, _ALL)
        new = await self._store.get_collection(self._new, _ALL)
        return replace(self._progress, documents=new.documents, total=old.documents)

    async def _missing(self) -> AsyncIterator[Frame]:
        async for page in self._pages(self._old):
            pairs = [(one.id, one.content_hash) for one in page]
            there = {one for one, _ in await self._store.check_documents(self._new, pairs, _ALL)}
            for document in page:
                if document.id not in there:
                    async for frame in frames(self._store, self._old, document.id, _ALL):
                        yield frame

    async def _remove_deleted(self) -> None:
        async for page in self._pages(self._new):
            pairs = [(one.id, one.content_hash) for one in page]
            there = {one for one, _ in await self._store.check_documents(self._old, pairs, _ALL)}
            for document in page:
                if document.id not in there:
                    await self._store.delete_document(self._new, document.id, _ALL)

    async def _pages(self, key: CollectionKey) -> AsyncIterator[Sequence[Document]]:
        after = ""
        while page := await self._store.list_documents(key, after, PAGE_DOCUMENTS, _ALL):
            yield page
            after = page[-1].id


def _same(held: Collection, wanted: NewCollection) -> bool:
    return (held.encoder, held.dimensions, held.analyzer, held.tokenizer_id, held.chunk_tokens) == (
        wanted.encoder, wanted.dimensions, wanted.analyzer, wanted.tokenizer_id,
        wanted.chunk_tokens,
    )  # fmt: skip
