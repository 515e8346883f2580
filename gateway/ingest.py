"""Documents on their way in: all are parsed before any can be found.

`Pipeline.ingest` conducts with what stands here. A document is asked for by its content's hash
first; only what changed is parsed, several at a time. One stream takes what is parsed to be
embedded meanwhile, and its last frame, once all are parsed, publishes them.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from google.protobuf.struct_pb2 import Struct

from gateway import clients
from gateway.auth import EVERY_GROUP
from gateway.clients import Mesh
from gateway.exchange import Call
from ragmesh.gateway.v1 import gateway_pb2
from ragmesh.preprocess.v1 import preprocess_pb2
from ragmesh.retrieve.v1 import retrieve_pb2
from services.runtime.errors import InvalidArgument, PermissionDenied, RagmeshError, Unavailable
from services.runtime.limits import UPLOAD_FRAME_BYTES

CHUNK_BATCH_BYTES = 256 * 1024
"""Text in one message of chunks; a chunk is far below the largest message."""
MAX_ID_CHARACTERS = 512
MAX_CACHED_TOKENIZERS = 8

_BLAMES_DOCUMENT = frozenset({"INVALID_ARGUMENT", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"})

Parsed = tuple[preprocess_pb2.DocumentInfo, list[preprocess_pb2.Chunk]]


class Content(Protocol):
    """A document's bytes, readable more than once."""

    def frames(self) -> AsyncIterator[bytes]:
        """The bytes from the beginning, in frames of at most 64 KiB."""
        ...


class AsyncFile(Protocol):
    """What Starlette's UploadFile can do."""

    async def read(self, size: int = -1) -> bytes: ...
    async def seek(self, offset: int) -> None: ...


@dataclass(frozen=True, slots=True)
class TextContent:
    """A document that came as text."""

    text: bytes

    async def frames(self) -> AsyncIterator[bytes]:
        for piece in clients.frames(self.text):
            yield piece


@dataclass(frozen=True, slots=True)
class FileContent:
    """A document that came as a file, in memory or on disk."""

    file: AsyncFile

    async def frames(self) -> AsyncIterator[bytes]:
        await self.file.seek(0)
        while piece := await self.file.read(UPLOAD_FRAME_BYTES):
            yield piece


@dataclass(frozen=True, slots=True)
class Upload:
    """A document to ingest."""

    id: str
    filename: str
    content: Content
    size: int
    """Bytes."""
    name: str
    """How messages call it: the file's name, or ``documents[3]``."""
    param: str
    """The request field at fault when it is refused."""
    content_type: str = ""
    title: str = ""
    source: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    access: tuple[str, ...] = ()
    """Who may read it: ``user:NAME`` or ``group:NAME``; empty for everyone in the tenant."""

    async def content_hash(self) -> str:
        """SHA-256 hex over everything that makes the document what it is."""
        digest = hashlib.sha256()
        facts = [self.title, self.source, self.filename, self.content_type]
        if self.access:
            facts += ["access", *sorted(set(self.access))]
        metadata = orjson.dumps(self.metadata, option=orjson.OPT_SORT_KEYS)
        digest.update(orjson.dumps([*facts, metadata.decode()]))
        async for piece in self.content.frames():
            digest.update(piece)
        return digest.hexdigest()


@dataclass(slots=True)
class Meter:
    """How far a call is."""

    total_documents: int
    documents: int = 0
    """Parsed, or there already with the same content."""
    total_chunks: int = 0
    """Of the documents that were parsed so far."""
    chunks: int = 0
    """Of these, embedded and written; searchable once all are."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def unchanged(self, documents: int) -> None:
        self.documents += documents
        if documents:
            self.changed.set()

    def parsed(self, chunks: int) -> None:
        self.documents += 1
        self.total_chunks += chunks
        self.changed.set()

    def written(self, chunks: int) -> None:
        self.chunks = chunks
        self.changed.set()


class Tokenizers:
    """The tokenizers' files by id; an id is the file's own hash, so nothing here grows old."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._files: OrderedDict[str, bytes] = OrderedDict()

    async def get(self, call: Call, tokenizer_id: str) -> bytes:
        known = self._files.get(tokenizer_id)
        if known is None:
            known = await clients.get_tokenizer(call, self._mesh, tokenizer_id)
            self._files[tokenizer_id] = known
            if len(self._files) > MAX_CACHED_TOKENIZERS:
                self._files.popitem(last=False)
        else:
            self._files.move_to_end(tokenizer_id)
        return known


class Ingest:
    """Parses and indexes the documents of one call after another."""

    def __init__(self, mesh: Mesh, *, parallel: int) -> None:
        """Args:
        parallel: documents of one call that are parsed at a time.
        """
        self._mesh = mesh
        self._parallel = parallel
        self._tokenizers = Tokenizers(mesh)

    async def run(
        self,
        call: Call,
        collection: str,
        uploads: Sequence[Upload],
        meter: Meter | None = None,
    ) -> list[gateway_pb2.IngestResult]:
        """Make all documents durable and searchable; results in the order of the uploads.

        Args:
            meter: is kept at how far it is; without one retrieve is not asked.

        Raises:
            RagmeshError: one document was refused, and is named; nothing was indexed then.
        """
        check_ids(uploads)
        check_access(uploads, call.principal.attributes)
        facts, hashes = await asyncio.gather(
            clients.get_collection(
                call, self._mesh, retrieve_pb2.GetCollectionRequest(name=collection)
            ),
            self._hashes(uploads),
        )
        unchanged = await self._unchanged(call, collection, uploads, hashes)
        changed = [upload for upload in uploads if upload.id not in unchanged]
        if meter is not None:
            meter.unchanged(len(unchanged))
        indexed = await self._flow(call, facts.collection, changed, hashes, meter)
        results = unchanged | indexed
        return [results[upload.id] for upload in uploads]

    async def watch(
        self, call: Call, collection: str, uploads: Sequence[Upload]
    ) -> AsyncGenerator[Meter | list[gateway_pb2.IngestResult], None]:
        """As `run`, telling on the way how far it is; the results come last. A reader who is slow
        holds nothing up and gets what is newest; one who leaves cancels the work.
        """
        meter = Meter(len(uploads))
        work = asyncio.create_task(self.run(call, collection, uploads, meter))
        work.add_done_callback(lambda _: meter.changed.set())
        try:
            while True:
                await meter.changed.wait()
                meter.changed.clear()
                if work.done():
                    break
                yield meter
            yield work.result()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _hashes(self, uploads: Sequence[Upload]) -> dict[str, str]:
        return {upload.id: await upload.content_hash() for upload in uploads}

    async def _unchanged(
        self, call: Call, collection: str, uploads: Sequence[Upload], hashes: Mapping[str, str]
    ) -> dict[str, gateway_pb2.IngestResult]:
        versions = [
            retrieve_pb2.DocumentVersion(id=upload.id, content_hash=hashes[upload.id])
            for upload in uploads
        ]
        known = await clients.check_documents(
            call,
            self._mesh,
            retrieve_pb2.CheckDocumentsRequest(collection=collection, documents=versions),
        )
        return {
            document.id: gateway_pb2.IngestResult(
                id=document.id,
                chunks=document.chunks,
                status=retrieve_pb2.INDEX_STATUS_UNCHANGED,
            )
            for document in known.unchanged
        }

    async def _flow(
        self,
        call: Call,
        collection: retrieve_pb2.Collection,
        uploads: Sequence[Upload],
        hashes: Mapping[str, str],
        meter: Meter | None,
    ) -> dict[str, gateway_pb2.IngestResult]:
        """Parse and index side by side: what is parsed is embedded while the next is parsed, and
        held back until all are. A document that is refused breaks the stream off, and with it all
        that is held."""
        if not uploads:
            return {}
        chunking = preprocess_pb2.Chunking(
            tokenizer_id=collection.tokenizer_id,
            max_tokens=collection.chunk_tokens,
            overlap_tokens=collection.chunk_overlap,
            languages=collection.encoder_languages,
        )
        waiting = iter(uploads)
        parsed: asyncio.Queue[tuple[Upload, Parsed]] = asyncio.Queue(1)
        workers = min(self._parallel, len(uploads))

        async def work() -> None:
            for upload in waiting:
                made = await self._parse(call, chunking, upload)
                if meter is not None:
                    meter.parsed(len(made[1]))
                await parsed.put((upload, made))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(work())
                header = retrieve_pb2.IndexHeader(
                    collection=collection.name, hold=True, progress=meter is not None
                )
                frames = _frames(header, parsed, len(uploads), hashes)
                indexing = group.create_task(self._index(call, frames, len(uploads), meter))
        except BaseExceptionGroup as failures:
            raise _first_told(failures) from None
        return indexing.result()

    async def _parse(self, call: Call, chunking: preprocess_pb2.Chunking, upload: Upload) -> Parsed:
        header = preprocess_pb2.DocumentHeader(
            filename=upload.filename,
            content_type=upload.content_type,
            title=upload.title,
            chunking=chunking,
        )
        try:
            info, chunks = await clients.process_document(
                call,
                self._mesh,
                header,
                upload.content.frames(),
                lambda: self._tokenizers.get(call, chunking.tokenizer_id),
            )
            if not chunks:
                raise InvalidArgument("EMPTY_DOCUMENT", "The document has no text.")
        except RagmeshError as error:
            raise blaming(error, upload) from None
        return info, chunks

    async def _index(
        self,
        call: Call,
        frames: AsyncIterator[retrieve_pb2.IndexDocumentsRequest],
        documents: int,
        meter: Meter | None,
    ) -> dict[str, gateway_pb2.IngestResult]:
        results: dict[str, gateway_pb2.IngestResult] = {}
        async for ack in clients.index_documents(call, self._mesh, frames):
            if ack.HasField("progress"):
                if meter is not None:
                    meter.written(ack.progress.chunks)
                continue
            results[ack.id] = gateway_pb2.IngestResult(
                id=ack.id, chunks=ack.chunks, status=ack.status
            )
        if len(results) != documents:
            raise Unavailable(
                "INGEST_INCOMPLETE",
                "Not every document was acknowledged; send them again, it is safe.",
                retry_after=1.0,
            )
        return results


async def _frames(
    header: retrieve_pb2.IndexHeader,
    parsed: asyncio.Queue[tuple[Upload, Parsed]],
    documents: int,
    hashes: Mapping[str, str],
) -> AsyncIterator[retrieve_pb2.IndexDocumentsRequest]:
    """The stream of a call; its last frame, after all documents were parsed, publishes them."""
    frame = retrieve_pb2.IndexDocumentsRequest
    yield frame(header=header)
    for _ in range(documents):
        upload, (info, chunks) = await parsed.get()
        yield frame(document=index_document(upload, hashes[upload.id], info, len(chunks)))
        for batch in batches(chunks):
            yield frame(chunks=batch)
    yield frame(end=retrieve_pb2.IndexEnd())


def _first_told(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that a caller is told: one that blames a document, where there is one."""
    told = [one for one in failures.exceptions if isinstance(one, RagmeshError)]
    return next((one for one in told if one.field), (told or failures.exceptions)[0])


def check_ids(uploads: Sequence[Upload]) -> None:
    """Raises:
    InvalidArgument: DOCUMENT_ID_INVALID, DOCUMENT_ID_REPEATED.
    """
    seen: set[str] = set()
    for upload in uploads:
        # Not str.isprintable: a Japanese file name may hold an ideographic space.
        control = any(ord(character) < 32 or ord(character) == 127 for character in upload.id)
        if control or not 1 <= len(upload.id) <= MAX_ID_CHARACTERS:
            raise InvalidArgument(
                "DOCUMENT_ID_INVALID",
                f"{upload.name}: a document's id has 1 to {MAX_ID_CHARACTERS} characters, none "
                "of them control characters.",
                field=upload.param,
            )
        if upload.id in seen:
            raise InvalidArgument(
                "DOCUMENT_ID_REPEATED",
                f"{upload.name}: the id '{upload.id}' stands twice in this call.",
                field=upload.param,
            )
        seen.add(upload.id)


def check_access(uploads: Sequence[Upload], attributes: Sequence[str]) -> None:
    """Before anything is parsed; retrieve checks the same again.

    Raises:
        PermissionDenied: ACCESS_NOT_HELD: a writer may name only what the token holds itself.
    """
    if EVERY_GROUP in attributes:
        return
    for upload in uploads:
        for entry in upload.access:
            if entry not in attributes:
                raise PermissionDenied(
                    "ACCESS_NOT_HELD",
                    f"{upload.name}: the access list names '{entry}', which the token does not "
                    "hold.",
                    field=f"{upload.param}.access",
                )


def blaming(error: RagmeshError, upload: Upload) -> RagmeshError:
    """The error with the document's name in it, when the document is at fault."""
    if error.code not in _BLAMES_DOCUMENT:
        return error
    return type(error)(
        error.reason,
        f"{upload.name}: {error.message}",
        field=upload.param,
        retry_after=error.retry_after,
    )


def index_document(
    upload: Upload, content_hash: str, info: preprocess_pb2.DocumentInfo, chunk_count: int
) -> retrieve_pb2.IndexDocument:
    metadata = Struct()
    metadata.update(dict(upload.metadata))
    # A document without any title is called by its file's name; one sent as text has only an id.
    title = upload.id if not upload.title and info.title == upload.filename else info.title
    return retrieve_pb2.IndexDocument(
        id=upload.id,
        title=title,
        source=upload.source,
        metadata=metadata,
        content_hash=content_hash,
        format=info.format,
        language=info.language,
        pages=info.pages,
        chunk_count=chunk_count,
        bytes=upload.size,
        access=upload.access,
    )


def batches(chunks: Sequence[preprocess_pb2.Chunk]) -> list[retrieve_pb2.IndexChunks]:
    """Chunks as the index takes them, in messages of bounded size."""
    made = [retrieve_pb2.IndexChunks()]
    size = 0
    for chunk in chunks:
        size += chunk.ByteSize()
        if size > CHUNK_BATCH_BYTES and made[-1].chunks:
            made.append(retrieve_pb2.IndexChunks())
            size = chunk.ByteSize()
        made[-1].chunks.add(
            index=chunk.index,
            text=chunk.text,
            normalized_text=chunk.normalized_text,
            heading=chunk.heading,
            page=chunk.page if chunk.HasField("page") else None,
            language=chunk.language,
        )
    return made
