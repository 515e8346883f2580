"""Giving a document another id, title, source or metadata without embedding it again.

Its chunks keep their dense vectors, although the title may be part of the text that was embedded
(`services.retrieve.texts`): it weighs little beside the chunk. Terms are made anew, so that the
sparse arm finds the new title. `reindex --force` embeds with the new one.
"""

import hashlib
import json
import uuid
from dataclasses import dataclass, replace

from services.retrieve.core import Retrieval
from services.retrieve.exporting import changed
from services.retrieve.indexing import check_document
from services.retrieve.ports import Attributes, CollectionKey, Document, EncodedChunk
from services.retrieve.profiles import parse
from services.retrieve.texts import indexed_text
from services.runtime.errors import AlreadyExists, NotFound

_PAGE_CHUNKS = 256


@dataclass(frozen=True, slots=True)
class Move:
    """What to change; None leaves it."""

    id: str
    new_id: str | None = None
    title: str | None = None
    source: str | None = None
    metadata_json: str | None = None
    replace: bool = False
    """Whether a document that has the new id is replaced."""


async def move(
    retrieval: Retrieval, key: CollectionKey, asked: Move, attributes: Attributes = ()
) -> Document:
    """Carry out a move in one commit and return the document as it is then.

    Raises:
        NotFound: COLLECTION_NOT_FOUND, DOCUMENT_NOT_FOUND.
        InvalidArgument: DOCUMENT_INVALID.
        AlreadyExists: DOCUMENT_EXISTS, DOCUMENT_ID_TAKEN.
        FailedPrecondition: ANALYZER_MISMATCH.
        Aborted: DOCUMENT_CHANGED.
        Unavailable: COLLECTION_BUSY.
    """
    store = retrieval.store
    retrieval.check_free(key)
    collection = await store.get_collection(key)
    retrieval.check_match(collection, dense=False)
    old = await store.get_document(key, asked.id, attributes)
    new = _changed(old, asked)
    if new == old:
        return old
    check_document(new)
    if new.id != old.id and not asked.replace:
        await _check_free(retrieval, key, new.id, attributes)
    averages = parse(collection.profile).averages
    token = uuid.uuid4().hex
    try:
        for start in range(0, old.chunks, _PAGE_CHUNKS):
            read, chunks = await store.read_document(key, old.id, start, _PAGE_CHUNKS, attributes)
            if read.content_hash != old.content_hash:
                raise changed(old.id)
            terms = await retrieval.analysis.documents(
                [indexed_text(new.title, one.chunk) for one in chunks],
                [one.chunk.language for one in chunks],
                averages,
            )
            words = await retrieval.field_terms([(new.title, one.chunk) for one in chunks])
            encoded = [
                EncodedChunk(token, one.chunk, one.dense, sparse, said)
                for one, sparse, said in zip(chunks, terms, words, strict=True)
            ]
            opened = [(token, new)] if not start else []
            await store.stage(key, opened, encoded, attributes)
        retrieval.check_free(key)
        await store.publish(key, [token], [(old.id, old.content_hash)])
    finally:
        store.discard(key, [token])
    return await store.get_document(key, new.id, attributes)


def _changed(old: Document, asked: Move) -> Document:
    """The document with what is asked, and a content hash that says so."""
    new = replace(
        old,
        id=old.id if asked.new_id is None else asked.new_id,
        title=old.title if asked.title is None else asked.title,
        source=old.source if asked.source is None else asked.source,
        metadata_json=old.metadata_json if asked.metadata_json is None else asked.metadata_json,
    )
    if new == old:
        return old
    facts = ["moved", old.content_hash, new.id, new.title, new.source, new.metadata_json]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return replace(new, content_hash=digest, updated_at=0.0)


async def _check_free(
    retrieval: Retrieval, key: CollectionKey, document_id: str, attributes: Attributes
) -> None:
    try:
        await retrieval.store.get_document(key, document_id, attributes)
    except NotFound:
        return  # one that the caller may not read is refused when it would be replaced
    raise AlreadyExists(
        "DOCUMENT_EXISTS",
        f"A document with the id {document_id[:100]!r} exists.",
        field="id",
    )
