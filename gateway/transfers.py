"""Collections on their way out of a mesh and into one: the index's frames as records, and back."""

import base64
import binascii
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import ValidationError

from gateway import records, views
from gateway.bodies import loads, refusal
from gateway.errors import too_large
from gateway.freeform import from_struct, to_struct
from gateway.ingest import CHUNK_BATCH_BYTES
from gateway.schemas import ImportedChunks, ImportedDocument, ImportHeader
from gateway.settings import GatewaySettings
from gateway.uploads import check_metadata
from ragmesh.gateway.v1 import gateway_pb2
from ragmesh.retrieve.v1 import retrieve_pb2
from services.runtime.errors import InvalidArgument, RagmeshError

Frame = retrieve_pb2.IndexDocumentsRequest


async def spelled(
    frames: AsyncGenerator[retrieve_pb2.ExportDocumentsResponse, None],
) -> AsyncGenerator[bytes, None]:
    """The lines of an export."""
    documents = chunks = 0
    async with aclosing(frames):
        async for frame in frames:
            match frame.WhichOneof("frame"):
                case "header":
                    yield records.dump(_header(frame.header))
                case "document":
                    documents += 1
                    yield records.dump(_document(frame.document))
                case "chunks":
                    chunks += len(frame.chunks.chunks)
                    yield records.dump(_chunks(frame.chunks))
                case _:
                    pass
    yield records.dump({"type": records.END, "documents": documents, "chunks": chunks})


def _header(header: retrieve_pb2.ExportHeader) -> views.View:
    of = header.collection
    return {
        "type": records.HEADER,
        "format": records.FORMAT,
        "version": records.VERSION,
        "name": of.name,
        "description": of.description,
        "encoder": of.encoder,
        "dimensions": of.dimensions,
        "analyzer": of.analyzer,
        "tokenizer_id": of.tokenizer_id,
        "chunk_tokens": of.chunk_tokens,
        "chunk_overlap": of.chunk_overlap,
        "documents": of.documents,
        "everything": header.everything,
        "generation": header.generation,
        "profile": header.profile,
    }


def _document(document: retrieve_pb2.IndexDocument) -> views.View:
    view: views.View = {
        "type": records.DOCUMENT,
        "id": document.id,
        "title": document.title,
        "source": document.source,
        "metadata": from_struct(document.metadata),
        "content_hash": document.content_hash,
        "format": document.format,
        "language": document.language,
        "pages": document.pages,
        "chunks": document.chunk_count,
        "bytes": document.bytes,
        "created_at": views.moment(document.created_at),
        "updated_at": views.moment(document.updated_at),
    }
    if document.access:
        view["access"] = list(document.access)
    return view


def _chunks(batch: retrieve_pb2.IndexChunks) -> views.View:
    return {
        "type": records.CHUNKS,
        "first": batch.chunks[0].index if batch.chunks else 0,
        "chunks": [_chunk(one) for one in batch.chunks],
    }


def _chunk(chunk: retrieve_pb2.IndexChunk) -> views.View:
    view: views.View = {"text": chunk.text}
    if chunk.normalized_text != chunk.text:
        view["normalized_text"] = chunk.normalized_text
    if chunk.heading:
        view["heading"] = chunk.heading
    if chunk.HasField("page"):
        view["page"] = chunk.page
    view["language"] = chunk.language
    if chunk.vector:
        view["vector"] = base64.b64encode(chunk.vector).decode("ascii")
    return view


class Import:
    """The records of one call on their way into a collection.

    What is refused is an InvalidArgument that names the line: RECORD_INVALID, FORMAT_UNSUPPORTED,
    or as a body's fields are refused.
    """

    def __init__(
        self, collection: str, body: AsyncIterable[bytes], settings: GatewaySettings
    ) -> None:
        self._collection = collection
        self._body = body
        self._settings = settings
        self.failure: Exception | None = None
        """Why the frames ended before the records did."""
        self._documents = 0

    async def frames(self) -> AsyncIterator[Frame]:
        """What the records say. A failure ends them and is kept: raised here, it would be lost in
        the task that gRPC reads them in."""
        try:
            header = retrieve_pb2.IndexHeader(collection=self._collection)
            number = 0
            opened = False
            async for line in lines(self._body):
                number += 1
                name = f"line {number}"
                record = _read(line, name)
                kind = record.pop("type", None)
                record.pop("sum", None)
                if kind == records.HEADER and not opened:
                    given = _as(ImportHeader, record, name)
                    _check_version(given, name)
                    header.origin.encoder = given.encoder
                    header.origin.analyzer = given.analyzer
                    header.origin.profile = given.profile
                    continue
                if kind == records.END:
                    continue
                if not opened:
                    yield Frame(header=header)
                    opened = True
                if kind == records.DOCUMENT:
                    yield Frame(document=self._document(record, name))
                elif kind == records.CHUNKS:
                    for batch in _batches(_as(ImportedChunks, record, name), name):
                        yield Frame(chunks=batch)
                else:
                    raise _invalid(name, "is neither a document nor chunks of one")
            if not opened:
                yield Frame(header=header)
        except Exception as failure:
            self.failure = failure

    def _document(self, record: dict[str, Any], name: str) -> retrieve_pb2.IndexDocument:
        self._documents += 1
        if self._documents > self._settings.max_documents:
            raise too_large(
                "TOO_MANY_DOCUMENTS", f"A call takes at most {self._settings.max_documents}."
            )
        given = _as(ImportedDocument, record, name)
        check_metadata(given.metadata, f"{name}.metadata", self._settings)
        return retrieve_pb2.IndexDocument(
            id=given.id,
            title=given.title,
            source=given.source,
            metadata=to_struct(given.metadata, f"{name}.metadata") if given.metadata else None,
            content_hash=given.content_hash,
            format=given.format,
            language=given.language,
            pages=given.pages,
            chunk_count=given.chunks,
            bytes=given.bytes,
            access=given.access or (),
            created_at=_moment(given.created_at, name),
            updated_at=_moment(given.updated_at, name),
        )


async def lines(body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The lines of a body that are not blank.

    Raises:
        ResourceExhausted: REQUEST_TOO_LARGE, for a line beyond MAX_LINE_BYTES.
    """
    rest = bytearray()
    async for piece in body:
        rest += piece
        end = rest.rfind(b"\n") + 1
        if end:
            whole, rest = bytes(rest[:end]), rest[end:]
            for line in whole.splitlines():
                if line.strip():
                    yield line
        if len(rest) > records.MAX_LINE_BYTES:
            raise too_large(
                "REQUEST_TOO_LARGE", f"A line is larger than {records.MAX_LINE_BYTES} bytes."
            )
    if rest.strip():
        yield bytes(rest)


def _read(line: bytes, name: str) -> dict[str, Any]:
    try:
        records.check(line)
    except records.RecordError:
        raise _invalid(name, "was changed after it was written") from None
    try:
        record = loads(line, name)
    except InvalidArgument as error:
        if name in error.message:
            raise
        raise InvalidArgument(error.reason, f"{name}: {error.message}", field=error.field) from None
    if not isinstance(record, dict):
        raise _invalid(name, "is no JSON object")
    return record


def _as(model: type[Any], record: dict[str, Any], name: str) -> Any:
    try:
        return model.model_validate(record)
    except ValidationError as error:
        refused = refusal(error)
        raise InvalidArgument(
            refused.reason, f"{name}: {refused.message}", field=refused.field
        ) from None


def _check_version(header: ImportHeader, name: str) -> None:
    if header.format != records.FORMAT or header.version > records.VERSION:
        raise InvalidArgument(
            "FORMAT_UNSUPPORTED",
            f"{name}: {header.format[:100]!r}, version {header.version}, cannot be read; up to "
            f"version {records.VERSION} of {records.FORMAT!r} can.",
            field="format",
        )


def _batches(given: ImportedChunks, name: str) -> list[retrieve_pb2.IndexChunks]:
    """Chunks as the index takes them, in messages of bounded size."""
    made = [retrieve_pb2.IndexChunks()]
    size = 0
    for place, one in enumerate(given.chunks):
        chunk = retrieve_pb2.IndexChunk(
            index=given.first + place,
            text=one.text,
            normalized_text=one.text if one.normalized_text is None else one.normalized_text,
            heading=one.heading,
            page=one.page,
            language=one.language,
            vector=_vector(one.vector, name),
        )
        size += chunk.ByteSize()
        if size > CHUNK_BATCH_BYTES and made[-1].chunks:
            made.append(retrieve_pb2.IndexChunks())
            size = chunk.ByteSize()
        made[-1].chunks.append(chunk)
    return made


def _vector(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _invalid(name, "has a vector that is no Base64") from None


def _moment(text: str | None, name: str) -> Timestamp | None:
    if text is None:
        return None
    made = Timestamp()
    try:
        made.FromJsonString(text)
    except ValueError:
        raise _invalid(name, "has a time that is none of RFC 3339") from None
    return made


def _invalid(name: str, problem: str) -> RagmeshError:
    return InvalidArgument("RECORD_INVALID", f"The {name} {problem}.")


async def imported(
    coming: Import, acks: AsyncGenerator[retrieve_pb2.IndexDocumentsResponse, None]
) -> views.View:
    """What became of each document; what stands before a record that is refused may be in."""
    results: list[views.View] = []
    embedded = 0
    try:
        async with aclosing(acks):
            async for ack in acks:
                embedded = ack.embedded_chunks
                result = gateway_pb2.IngestResult(id=ack.id, chunks=ack.chunks, status=ack.status)
                results.append(views.ingested(result))
    except RagmeshError:
        if coming.failure is None:
            raise
    if coming.failure is not None:
        raise coming.failure
    return {"documents": results, "embedded_chunks": embedded}


def reindexed(progress: retrieve_pb2.ReindexCollectionResponse) -> views.View:
    """How far making a collection anew is; at the end with the collection."""
    view: views.View = {
        "documents": progress.documents,
        "total_documents": progress.total_documents,
        "embedded_chunks": progress.embedded_chunks,
        "full_chunks": progress.full_chunks,
    }
    if progress.HasField("collection"):
        view["reindexed"] = progress.reindexed
        view["collection"] = views.collection(progress.collection)
    return view
