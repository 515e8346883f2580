"""A collection's documents on their way out, as `services.retrieve.indexing` takes them in."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.retrieve.access import EVERYTHING
from services.retrieve.core import Retrieval, visible
from services.retrieve.indexing import DocumentFrame, VectoredChunk
from services.retrieve.ports import Attributes, Collection, CollectionKey, Document, Store
from services.runtime.errors import Aborted, NotFound

PAGE_DOCUMENTS = 500
PAGE_CHUNKS = 64
"""Chunks that are read at once: some 200 KiB of texts and vectors."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What opens an export."""

    collection: Collection
    everything: bool
    """Whether the caller may read everything in the tenant, so that nothing can be missing."""


async def export(
    retrieval: Retrieval,
    tenant: str,
    name: str,
    *,
    after: str = "",
    generation: str = "",
    attributes: Attributes = (),
) -> AsyncIterator[Exported | DocumentFrame]:
    """What the caller may read of a collection: its facts, then documents by id.

    Args:
        after: the document to go on after.
        generation: of the collection that was begun with; empty for any.

    Raises:
        NotFound: COLLECTION_NOT_FOUND.
        Aborted: COLLECTION_CHANGED, when it is another by now; DOCUMENT_CHANGED, as `frames` says.
    """
    key = visible(tenant, name)
    collection = await retrieval.store.get_collection(key, attributes)
    if generation not in ("", collection.generation):
        raise Aborted(
            "COLLECTION_CHANGED",
            "Another collection has the name by now; begin from the beginning.",
            field="generation",
        )
    yield Exported(collection, EVERYTHING in attributes)
    while documents := await retrieval.store.list_documents(key, after, PAGE_DOCUMENTS, attributes):
        for document in documents:
            async for frame in frames(retrieval.store, key, document.id, attributes):
                yield frame
        after = documents[-1].id


async def frames(
    store: Store, key: CollectionKey, document_id: str, attributes: Attributes
) -> AsyncIterator[DocumentFrame]:
    """A document's facts and its chunks with their vectors; nothing for one that is gone.

    Raises:
        Aborted: DOCUMENT_CHANGED, when it is replaced or deleted after its facts were given.
    """
    opened: Document | None = None
    start = 0
    while opened is None or start < opened.chunks:
        try:
            document, chunks = await store.read_document(
                key, document_id, start, PAGE_CHUNKS, attributes
            )
        except NotFound:
            if opened is None:
                return
            raise changed(document_id) from None
        if opened is None:
            yield (opened := document)
        elif document.content_hash != opened.content_hash:
            raise changed(document_id)
        yield [VectoredChunk(one.chunk, one.dense) for one in chunks]
        start += PAGE_CHUNKS


def changed(document_id: str) -> Aborted:
    """The document was replaced or deleted while it was read."""
    return Aborted(
        "DOCUMENT_CHANGED",
        f"The document {document_id[:100]!r} was changed meanwhile; try again.",
        field="id",
    )
