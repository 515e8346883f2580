"""Documents on their way in: read, encoded, staged and published side by side.

Three tasks and two bounded queues: while one batch of chunks is in the encoder, the next is read,
cut into tokens and weighed, and the one before is written. What is complete when the writer has
nothing more to do is published in one commit, so a stream of small documents costs few of them.
"""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from prometheus_client import Counter

from services.retrieve.access import check_access
from services.retrieve.core import Retrieval
from services.retrieve.ports import (
    MAX_CHUNKS,
    Attributes,
    Chunk,
    Collection,
    CollectionKey,
    Document,
    EncodedChunk,
    Published,
    PublishStatus,
    SparseVector,
)
from services.retrieve.profiles import Profile, adoptable, dump, parse
from services.retrieve.tasks import together
from services.retrieve.texts import indexed_text
from services.runtime.errors import InvalidArgument
from services.text.language import detect_language

log = logging.getLogger(__name__)

DOCUMENTS = Counter("ragmesh_retrieve_indexed_documents", "Documents that came in.", ["status"])
CHUNKS = Counter("ragmesh_retrieve_indexed_chunks", "Chunks that were encoded and stored.")

MAX_ID = 512
MAX_METADATA_BYTES = 64 * 1024
MAX_CHUNK_CHARACTERS = 100_000
BATCH_CHUNKS = 96
"""Chunks that are encoded together."""
WAITING_CHUNKS = 192
"""Chunks that may wait for the encoder."""
COMMIT_CHUNKS = 512
"""Chunks after which complete documents are published even while more are coming."""
COMMIT_SECONDS = 2.0
"""Seconds after which they are: what is lost with the process, and what progress is told by."""


@dataclass(frozen=True, slots=True)
class VectoredChunk:
    """A chunk with the vector that it had where it was indexed before."""

    chunk: Chunk
    dense: bytes
    """Little-endian float32."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where documents that were indexed before come from."""

    encoder: str
    """The id of the encoder that made their vectors; those of another than the running one are
    not used."""
    analyzer: str = ""
    """The id of their collection's analyser."""
    profile: str = ""
    """What was learned from their collection."""


@dataclass(frozen=True, slots=True)
class End:
    """Everything was sent."""


DocumentFrame = Document | Sequence[Chunk | VectoredChunk]
"""A document's facts open it; its chunks follow."""
Frame = DocumentFrame | End


@dataclass(slots=True)
class _Incoming:
    """A document whose chunks are being read."""

    document: Document
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    read: int = 0
    unchanged: bool = False

    @property
    def complete(self) -> bool:
        return self.read == self.document.chunks


@dataclass(frozen=True, slots=True)
class _Piece:
    """A chunk, the document it belongs to, and whether it is the first and the last one."""

    owner: _Incoming
    chunk: Chunk
    dense: bytes
    """The vector that came with it; empty where it is to be embedded."""
    opens: bool
    completes: bool


@dataclass(frozen=True, slots=True)
class _Encoded:
    pieces: Sequence[_Piece]
    chunks: Sequence[EncodedChunk]


@dataclass(frozen=True, slots=True)
class Staged:
    """How far a stream is."""

    chunks: int
    """Chunks that are embedded and written, searchable or not."""


class Indexing:
    """One stream of documents into one collection."""

    def __init__(
        self,
        retrieval: Retrieval,
        tenant: str,
        collection: str,
        attributes: Attributes = (),
        origin: Origin | None = None,
        *,
        hold: bool = False,
    ) -> None:
        """Args:
        retrieval: the service's parts.
        tenant: whose collection.
        collection: its name.
        attributes: the caller's.
        origin: where documents that were indexed before come from.
        hold: publish nothing before an `End`, so that a stream which is broken off changes
            nothing.
        """
        self._hold = hold
        self._retrieval = retrieval
        self._attributes = attributes
        self._origin = origin
        self._key = CollectionKey(tenant, collection)
        self.embedded_chunks = 0
        """Chunks whose vectors were made, not brought."""
        self.full_chunks = 0
        """Of these, those that fill what the encoder reads."""
        self._read_queue: asyncio.Queue[_Piece | None] = asyncio.Queue(WAITING_CHUNKS)
        self._encoded: asyncio.Queue[asyncio.Task[_Encoded] | None] = asyncio.Queue(1)
        self._batches: set[asyncio.Task[_Encoded]] = set()
        self._outcomes: asyncio.Queue[Published | Staged | None] = asyncio.Queue()
        self._staged: set[str] = set()
        self._adopted = False
        """Whether what was learned elsewhere holds, so that nothing is to be learned here."""
        self._copies = False
        """Whether chunks are to be weighed as they are where they come from."""

    async def run(self, frames: AsyncIterator[Frame]) -> AsyncIterator[Published | Staged]:
        """Index and yield an outcome per document once it is durable and searchable; before it, how
        many chunks are written.

        Raises:
            InvalidArgument: DOCUMENT_INVALID or CHUNK_INVALID, naming the document;
                STREAM_UNFINISHED.
            NotFound: COLLECTION_NOT_FOUND.
            FailedPrecondition: ENCODER_MISMATCH.
            PermissionDenied: ACCESS_NOT_HELD.
            AlreadyExists: DOCUMENT_ID_TAKEN.
            Unavailable: COLLECTION_BUSY.
        """
        collection = await self._retrieval.store.get_collection(self._key)
        self._retrieval.check_match(collection)
        began = collection.all_chunks
        profile = await self._adopt(collection)
        self._adopted = profile is not None
        work = asyncio.create_task(together(self._read(frames), self._encode(), self._write()))
        work.add_done_callback(lambda _: self._outcomes.put_nowait(None))
        try:
            while (outcome := await self._outcomes.get()) is not None:
                if isinstance(outcome, Published):
                    DOCUMENTS.labels(outcome.status).inc()
                yield outcome
            await work
        finally:
            work.cancel()
            for batch in self._batches:
                batch.cancel()
            await asyncio.gather(work, *self._batches, return_exceptions=True)
            self._retrieval.store.discard(self._key, list(self._staged))
        collection = await self._retrieval.store.get_collection(self._key)
        if profile is None:
            self._retrieval.learning.notice(self._key, collection, since=began)
        else:
            chunks = collection.all_chunks if profile.chunks else 0
            learned = dump(replace(profile, chunks=chunks))
            await self._retrieval.store.set_profile(self._key, collection.generation, learned)

    async def _adopt(self, collection: Collection) -> Profile | None:
        """Take over what was learned where the documents come from, so that a copy of a
        collection ranks as the collection does; None where it does not fit."""
        origin = self._origin
        if origin is None or (origin.encoder, origin.analyzer) != (
            collection.encoder,
            collection.analyzer,
        ):
            return None
        self._copies = True
        profile = adoptable(origin.profile)
        if profile is None or profile.encoder != collection.encoder:
            return None
        if collection.all_chunks and parse(collection.profile).averages != profile.averages:
            return None  # it has learned for itself; chunks are weighed by its own averages
        learned = dump(replace(profile, chunks=collection.all_chunks))
        await self._retrieval.store.set_profile(self._key, collection.generation, learned)
        return profile

    async def _read(self, frames: AsyncIterator[Frame]) -> None:
        current: _Incoming | None = None
        ended = False
        async for frame in frames:
            if ended:
                raise InvalidArgument("DOCUMENT_INVALID", "After the end nothing comes.")
            if isinstance(frame, End):
                ended = True
                continue
            if isinstance(frame, Document):
                _check_finished(current)
                current = await self._open(frame)
                continue
            if current is None:
                raise InvalidArgument("CHUNK_INVALID", "A chunk came before its document.")
            for one in frame:
                chunk, dense = (one, b"") if isinstance(one, Chunk) else (one.chunk, one.dense)
                checked = _checked(current, chunk)
                dense = self._usable(current, chunk, dense)
                current.read += 1
                if not current.unchanged:
                    first, last = current.read == 1, current.complete
                    await self._read_queue.put(_Piece(current, checked, dense, first, last))
        _check_finished(current)
        if self._hold and not ended:
            # A stream that is cancelled ends too, as far as one sees here.
            raise InvalidArgument(
                "STREAM_UNFINISHED", "The stream ended before its end frame; nothing was changed."
            )
        await self._read_queue.put(None)

    def _usable(self, incoming: _Incoming, chunk: Chunk, dense: bytes) -> bytes:
        """A vector that came with a chunk, where the running encoder made it; else none.

        Raises:
            InvalidArgument: CHUNK_INVALID, when it is no vector of that encoder.
        """
        facts = self._retrieval.encoder.facts
        if not dense or self._origin is None or self._origin.encoder != facts.id:
            return b""
        values = np.frombuffer(dense, "<f4") if len(dense) == 4 * facts.dimensions else None
        if values is None or not np.isfinite(values).all() or not values.any():
            raise InvalidArgument(
                "CHUNK_INVALID",
                f"The vector of chunk {chunk.index} of the document "
                f"{incoming.document.id[:100]!r} is none of {facts.id}.",
                field="chunks",
            )
        return dense

    async def _open(self, document: Document) -> _Incoming:
        check_document(document)
        check_access(document.access, self._attributes, document.id)
        incoming = _Incoming(document)
        pair = (document.id, document.content_hash)
        store = self._retrieval.store
        if held := await store.check_documents(self._key, [pair], self._attributes):
            incoming.unchanged = True
            unchanged = PublishStatus.UNCHANGED.value
            self._outcomes.put_nowait(Published(document.id, held[0][1], unchanged))
        return incoming

    async def _encode(self) -> None:
        ended = False
        while not ended:
            first = await self._read_queue.get()
            pieces: list[_Piece] = []
            while first is not None:
                pieces.append(first)
                if len(pieces) >= BATCH_CHUNKS or self._read_queue.empty():
                    break
                first = self._read_queue.get_nowait()
            ended = first is None
            if pieces:
                # One is written, one waits and one is put: their steps take place side by side.
                batch = asyncio.create_task(self._encode_batch(pieces))
                self._batches.add(batch)
                batch.add_done_callback(self._batches.discard)
                await self._encoded.put(batch)
        await self._encoded.put(None)

    async def _encode_batch(self, pieces: Sequence[_Piece]) -> _Encoded:
        texts = [indexed_text(one.owner.document.title, one.chunk) for one in pieces]
        vectors, sparse = await asyncio.gather(
            self._vectors(pieces, texts), self._weighed(pieces, texts)
        )
        pairs = [(one.owner.document.title, one.chunk) for one in pieces]
        terms = await self._retrieval.field_terms(pairs)
        chunks = [
            EncodedChunk(piece.owner.token, piece.chunk, dense, weights, words)
            for piece, dense, weights, words in zip(pieces, vectors, sparse, terms, strict=True)
        ]
        return _Encoded(pieces, chunks)

    async def _weighed(
        self, pieces: Sequence[_Piece], texts: Sequence[str]
    ) -> Sequence[SparseVector]:
        """Sparse vectors by what the collection has learned so far."""
        languages = [one.chunk.language for one in pieces]
        profile = parse((await self._retrieval.store.get_collection(self._key)).profile)
        if not profile.averages and not self._copies:
            by_language: dict[str, list[str]] = {}
            for language, text in zip(languages, texts, strict=True):
                by_language.setdefault(language, []).append(text)
            profile = await self._retrieval.learning.begin(self._key, by_language)
        async with self._retrieval.turns.turn():
            return await self._retrieval.analysis.documents(texts, languages, profile.averages)

    async def _vectors(self, pieces: Sequence[_Piece], texts: Sequence[str]) -> list[bytes]:
        """The vectors that came, and those that are made of the texts of the others."""
        encoder = self._retrieval.encoder
        missing = [number for number, one in enumerate(pieces) if not one.dense]
        vectors = [one.dense for one in pieces]
        if missing:
            prepared = await encoder.prepare([texts[number] for number in missing])
            encoded = await encoder.encode(prepared, stream=self._key.tenant)
            for number, row in zip(missing, encoded.vectors.astype("<f4"), strict=True):
                vectors[number] = row.tobytes()
            self.embedded_chunks += len(missing)
            self.full_chunks += sum(one.tokens >= encoder.facts.max_tokens for one in prepared)
        return vectors

    async def _write(self) -> None:
        store = self._retrieval.store
        complete: list[str] = []
        waiting, written, committed = 0, 0, time.monotonic()
        while (encoding := await self._encoded.get()) is not None:
            batch = await encoding
            opened = [(one.owner.token, one.owner.document) for one in batch.pieces if one.opens]
            self._staged.update(token for token, _ in opened)
            async with self._retrieval.turns.turn():
                await store.stage(self._key, opened, batch.chunks, self._attributes)
            CHUNKS.inc(len(batch.chunks))
            complete += [one.owner.token for one in batch.pieces if one.completes]
            waiting += len(batch.chunks)
            written += len(batch.chunks)
            self._outcomes.put_nowait(Staged(written))
            if self._hold:
                continue
            due = waiting >= COMMIT_CHUNKS or time.monotonic() - committed >= COMMIT_SECONDS
            if complete and (due or self._idle()):
                await self._publish(complete)
                complete, waiting, committed = [], 0, time.monotonic()
        if complete:
            await self._publish(complete)

    def _idle(self) -> bool:
        """Whether nothing is on its way to the writer; the caller then waits for an answer."""
        return self._encoded.empty() and self._read_queue.empty()

    async def _publish(self, tokens: list[str]) -> None:
        self._retrieval.check_free(self._key)
        for outcome in await self._retrieval.store.publish(self._key, tokens):
            self._outcomes.put_nowait(outcome)
        self._staged.difference_update(tokens)
        if not self._adopted:
            # Now, and not only in the end: in a large collection chunks are not weighed again.
            collection = await self._retrieval.store.get_collection(self._key)
            self._retrieval.learning.notice(self._key, collection)


def check_document(document: Document) -> None:
    """Raises: InvalidArgument DOCUMENT_INVALID, naming the document and the field."""
    document_id = document.id
    shown = document_id[:100]
    if not 1 <= len(document_id) <= MAX_ID or any(ord(one) < 32 for one in document_id):
        raise InvalidArgument(
            "DOCUMENT_INVALID",
            f"A document's id has 1 to {MAX_ID} characters and no control characters.",
            field="document.id",
        )
    if not 1 <= len(document.content_hash) <= 128:
        raise InvalidArgument(
            "DOCUMENT_INVALID",
            f"The document {shown!r} has no content hash.",
            field="document.content_hash",
        )
    if not 1 <= document.chunks <= MAX_CHUNKS:
        raise InvalidArgument(
            "DOCUMENT_INVALID",
            f"The document {shown!r} has {document.chunks} chunks; allowed are 1 to {MAX_CHUNKS}.",
            field="document.chunk_count",
        )
    if len(document.metadata_json.encode()) > MAX_METADATA_BYTES:
        raise InvalidArgument(
            "DOCUMENT_INVALID",
            f"The metadata of {shown!r} is larger than {MAX_METADATA_BYTES // 1024} KiB.",
            field="document.metadata",
        )
    json.loads(document.metadata_json or "{}")


def _check_finished(incoming: _Incoming | None) -> None:
    if incoming is not None and not incoming.complete:
        raise InvalidArgument(
            "DOCUMENT_INVALID",
            f"The document {incoming.document.id[:100]!r} has {incoming.read} of "
            f"{incoming.document.chunks} chunks.",
            field="document.chunk_count",
        )


def _checked(incoming: _Incoming, chunk: Chunk) -> Chunk:
    problem = ""
    if chunk.index != incoming.read or incoming.complete:
        problem = f"comes as number {incoming.read} of {incoming.document.chunks}"
    elif not chunk.text.strip() or not chunk.normalized_text.strip():
        problem = "is empty"
    elif max(len(chunk.text), len(chunk.normalized_text)) > MAX_CHUNK_CHARACTERS:
        problem = f"is longer than {MAX_CHUNK_CHARACTERS} characters"
    if problem:
        raise InvalidArgument(
            "CHUNK_INVALID",
            f"Chunk {chunk.index} of the document {incoming.document.id[:100]!r} {problem}.",
            field="chunks",
        )
    if chunk.language:
        return chunk
    language = detect_language(chunk.normalized_text)
    return Chunk(
        chunk.index, chunk.text, chunk.normalized_text, chunk.heading, chunk.page, language
    )
