"""The wire's side of preprocess: protobuf in, dataclasses to the core, protobuf out."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from typing import Any

import grpc

from ragmesh.preprocess.v1 import preprocess_pb2 as pb
from ragmesh.preprocess.v1 import preprocess_pb2_grpc
from ragmesh.type.v1 import chat_pb2
from services.preprocess import metrics
from services.preprocess.conversation import Plan, Query, Turn
from services.preprocess.core import Preprocessor, Upload
from services.preprocess.documents import Chunk, Chunking, Facts, Processed
from services.preprocess.formats import EXTENSIONS, extension_of
from services.runtime.errors import DeadlineExceeded, InvalidArgument, RagmeshError
from services.runtime.version import VERSION

# A frame's text stays far below the message limit of 4 MB, so that flow control has a grip.
_BATCH_CHARACTERS = 64 * 1024
_BATCH_CHUNKS = 64
# How long a refused upload may go on before its caller is told all the same.
_DRAIN_SECONDS = 10.0

Context = grpc.aio.ServicerContext[Any, Any]


class PreprocessServicer(preprocess_pb2_grpc.PreprocessServiceServicer):
    """Translates; decides nothing."""

    def __init__(self, core: Preprocessor, backends: dict[str, str]) -> None:
        self._core = core
        self._backends = backends

    async def ProcessDocument(
        self, request_iterator: AsyncIterator[pb.ProcessDocumentRequest], context: Context
    ) -> AsyncIterator[pb.ProcessDocumentResponse]:
        frames = aiter(request_iterator)
        header = await self._header(frames)
        with (
            _counted(header.filename) as outcome,
            self._core.upload(
                header.filename, header.content_type, header.title, _chunking(header.chunking)
            ) as upload,
        ):
            yield pb.ProcessDocumentResponse(
                ready=pb.Ready(tokenizer_needed=upload.tokenizer_needed)
            )
            await self._receive(frames, upload)
            processed = await upload.process()
            outcome.done(processed)
        yield pb.ProcessDocumentResponse(document=_facts(processed.facts))
        for batch in _batches(processed.chunks):
            yield pb.ProcessDocumentResponse(chunks=batch)

    async def PlanQuery(
        self, request: pb.PlanQueryRequest, context: Context
    ) -> pb.PlanQueryResponse:
        plan = self._core.plan_query(
            request.query, [_turn(message) for message in request.history], request.max_characters
        )
        return _plan(plan, request.history)

    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        return pb.GetServerInfoResponse(version=VERSION, backends=self._backends)

    async def _header(self, frames: AsyncIterator[pb.ProcessDocumentRequest]) -> pb.DocumentHeader:
        frame = await self._next(frames)
        if frame is None or frame.WhichOneof("frame") != "header":
            raise InvalidArgument(
                "UNREADABLE_DOCUMENT", "A document opens with its header.", field="header"
            )
        return frame.header

    async def _receive(
        self, frames: AsyncIterator[pb.ProcessDocumentRequest], upload: Upload
    ) -> None:
        """Take the frames. A refusal waits for the rest of them: a client of grpc.aio that is
        still writing when the status comes sees an INTERNAL of its own instead."""
        try:
            while (frame := await self._next(frames)) is not None:
                _take(frame, upload)
        except DeadlineExceeded:
            raise  # the client is silent: there is nothing to wait for
        except RagmeshError:
            with suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    async for _ in frames:
                        pass
            raise

    async def _next(
        self, frames: AsyncIterator[pb.ProcessDocumentRequest]
    ) -> pb.ProcessDocumentRequest | None:
        """The next frame, or None at the end.

        Raises:
            DeadlineExceeded: UPLOAD_STALLED, so that a silent client gives its place back.
        """
        timer = asyncio.timeout(self._core.settings.upload_idle_seconds)
        try:
            async with timer:
                return await anext(frames, None)
        except TimeoutError:
            if not timer.expired():
                raise
            raise DeadlineExceeded(
                "UPLOAD_STALLED", "The upload paused for too long; send the document again."
            ) from None


class _counted:
    """Counts a document by format and outcome."""

    def __init__(self, filename: str) -> None:
        # Before it is recognised only its name tells; unknown names are not labels.
        self._format = EXTENSIONS.get(extension_of(filename), "other")

    def __enter__(self) -> "_counted":
        return self

    def done(self, processed: Processed) -> None:
        self._format = processed.facts.format
        metrics.PARSE_SECONDS.labels(self._format).observe(processed.parse_seconds)
        metrics.CHUNK_SECONDS.labels(self._format).observe(processed.chunk_seconds)

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        if error is None:
            outcome = "ok"
        elif isinstance(error, RagmeshError):
            outcome = error.reason
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            outcome = "cancelled"
        else:
            outcome = "failed"
        metrics.DOCUMENTS.labels(self._format, outcome).inc()


def _take(frame: pb.ProcessDocumentRequest, upload: Upload) -> None:
    kind = frame.WhichOneof("frame")
    if kind == "data":
        upload.add(frame.data)
    elif kind == "tokenizer":
        upload.add_tokenizer(frame.tokenizer)
    else:
        raise InvalidArgument("UNREADABLE_DOCUMENT", "A document has one header.", field="header")


def _chunking(message: pb.Chunking) -> Chunking:
    overlap = message.overlap_tokens if message.HasField("overlap_tokens") else 0
    return Chunking(message.tokenizer_id, message.max_tokens, overlap, tuple(message.languages))


def _facts(facts: Facts) -> pb.DocumentInfo:
    return pb.DocumentInfo(
        format=facts.format,
        title=_wire(facts.title),
        language=facts.language,
        pages=facts.pages,
        characters=facts.characters,
        warnings=facts.warnings,
    )


def _batches(chunks: Sequence[Chunk]) -> Iterator[pb.ChunkBatch]:
    batch = pb.ChunkBatch()
    size = 0
    for chunk in chunks:
        batch.chunks.append(_chunk(chunk))
        size += 2 * len(chunk.text)
        if size >= _BATCH_CHARACTERS or len(batch.chunks) >= _BATCH_CHUNKS:
            yield batch
            batch, size = pb.ChunkBatch(), 0
    if batch.chunks:
        yield batch


def _chunk(chunk: Chunk) -> pb.Chunk:
    return pb.Chunk(
        index=chunk.index,
        text=_wire(chunk.text),
        normalized_text=chunk.normalized_text,
        heading=_wire(chunk.heading),
        page=chunk.page,
        language=chunk.language,
        tokens=chunk.tokens,
        start=chunk.start,
        end=chunk.end,
    )


def _wire(text: str) -> str:
    """Text that protobuf takes: a damaged file may give half a character (a lone surrogate)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _turn(message: chat_pb2.ChatMessage) -> Turn:
    text = "\n".join(part.text for part in message.content if part.WhichOneof("part") == "text")
    return Turn(by_user=message.role == chat_pb2.ROLE_USER, text=text)


def _plan(plan: Plan, history: Sequence[chat_pb2.ChatMessage]) -> pb.PlanQueryResponse:
    if plan.rewrite_turns is None:
        outcome = "completed" if plan.query.rewritten else "standalone"
        metrics.PLANS.labels(outcome).inc()
        return pb.PlanQueryResponse(standalone=_query(plan.query))
    metrics.PLANS.labels("rewrite").inc()
    return pb.PlanQueryResponse(
        rewrite=pb.RewriteRequest(
            query=plan.asked,
            history=[history[index] for index in plan.rewrite_turns],
            language=plan.language,
            fallback=_query(plan.query),
        )
    )


def _query(query: Query) -> pb.StandaloneQuery:
    return pb.StandaloneQuery(
        query=query.text,
        normalized_query=query.normalized,
        language=query.language,
        rewritten=query.rewritten,
    )
