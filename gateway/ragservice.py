"""``ragmesh.gateway.v1.RagService``: the gRPC face on the same pipeline."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing
from typing import IO, Any

import grpc

from gateway.auth import Authenticator
from gateway.completions import gather
from gateway.errors import too_large
from gateway.exchange import Call, Exchange
from gateway.freeform import from_struct
from gateway.ingest import FileContent, Upload
from gateway.limits.limiter import Limiter
from gateway.pipeline import Pipeline
from gateway.settings import MIB, GatewaySettings
from gateway.uploads import check_metadata, read_access, refuse_misplaced_access
from ragmesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from ragmesh.infer.v1 import infer_pb2
from services.runtime.context import Caller, current_request_id, set_caller
from services.runtime.deadlines import Budget, time_remaining
from services.runtime.errors import InvalidArgument

Context = grpc.aio.ServicerContext[Any, Any]


class RagServicer(gateway_pb2_grpc.RagServiceServicer):
    """Verifies the token, then leaves everything to the pipeline."""

    def __init__(
        self,
        pipeline: Pipeline,
        authenticator: Authenticator,
        limiter: Limiter,
        settings: GatewaySettings,
    ) -> None:
        self._pipeline = pipeline
        self._authenticator = authenticator
        self._limiter = limiter
        self._settings = settings

    async def _call(self, context: Context, *scopes: str, ingest: bool = False) -> Call:
        """Raises:
        Unauthenticated: no token, or not a valid one.
        ResourceExhausted: RATE_LIMIT_EXCEEDED.
        PermissionDenied: the token lacks a scope.
        """
        metadata = dict(context.invocation_metadata() or ())
        given = metadata.get("authorization")
        principal = self._authenticator.authenticate(given if isinstance(given, str) else None)
        address = context.peer().rpartition(":")[0]
        admission = await self._limiter.admit(
            principal, address, "POST", f"/{SERVICE_NAME}/", grpc=True
        )
        admission.check()
        principal.require(*scopes)
        settings = self._settings
        seconds = settings.ingest_budget if ingest else settings.request_budget
        left = time_remaining(context)
        call = Call(
            principal,
            Budget(seconds if left is None else min(seconds, left)),
            Exchange(current_request_id()),
        )
        set_caller(Caller(call.tenant, principal.subject, call.exchange.request_id))
        return call

    async def Query(
        self, request: gateway_pb2.QueryRequest, context: Context
    ) -> gateway_pb2.QueryResponse:
        return await self._pipeline.query(await self._call(context, "chat", "search"), request)

    async def StreamQuery(
        self, request: gateway_pb2.StreamQueryRequest, context: Context
    ) -> AsyncGenerator[gateway_pb2.StreamQueryResponse, None]:
        call = await self._call(context, "chat", "search")
        async with aclosing(self._pipeline.stream_query(call, request.query)) as events:
            async for event in events:
                yield event

    async def Search(
        self, request: gateway_pb2.SearchRequest, context: Context
    ) -> gateway_pb2.SearchResponse:
        found = await self._pipeline.search(await self._call(context, "search"), request)
        return gateway_pb2.SearchResponse(
            hits=found.hits,
            explanation=found.explanation if found.HasField("explanation") else None,
            rerank=found.rerank if found.HasField("rerank") else None,
        )

    async def Chat(
        self, request: gateway_pb2.ChatRequest, context: Context
    ) -> AsyncGenerator[gateway_pb2.ChatResponse, None]:
        scopes = ("chat", "search") if request.HasField("retrieval") else ("chat",)
        async with aclosing(
            self._pipeline.chat(await self._call(context, *scopes), request)
        ) as events:
            async for event in events:
                yield event

    async def Embed(
        self, request: gateway_pb2.EmbedRequest, context: Context
    ) -> gateway_pb2.EmbedResponse:
        made = await self._pipeline.embed(await self._call(context, "search"), request.embed)
        return gateway_pb2.EmbedResponse(embed=made)

    async def Rerank(
        self, request: gateway_pb2.RerankRequest, context: Context
    ) -> gateway_pb2.RerankResponse:
        made = await self._pipeline.rerank(await self._call(context, "search"), request.rerank)
        return gateway_pb2.RerankResponse(rerank=made)

    async def Summarize(
        self, request: gateway_pb2.SummarizeRequest, context: Context
    ) -> gateway_pb2.SummarizeResponse:
        call = await self._call(context, "chat")
        if not request.text:
            raise InvalidArgument("TEXT_EMPTY", "text must not be empty.", field="text")
        if len(request.text) > self._settings.max_text_characters:
            most = self._settings.max_text_characters
            raise InvalidArgument(
                "TEXT_TOO_LONG", f"text is longer than {most} characters.", field="text"
            )
        generate = infer_pb2.GenerateRequest(
            model=request.model,
            task=infer_pb2.TASK_SUMMARIZE,
            text=request.text,
            language=request.language,
            summary_length=request.length,
        )
        made = await gather(self._pipeline.generate(call, generate))
        return gateway_pb2.SummarizeResponse(text=made.text, model=made.model, usage=made.usage)

    async def CreateCollection(
        self, request: gateway_pb2.CreateCollectionRequest, context: Context
    ) -> gateway_pb2.CreateCollectionResponse:
        call = await self._call(context, "documents:write")
        made = await self._pipeline.create_collection(call, request.collection)
        return gateway_pb2.CreateCollectionResponse(collection=made)

    async def GetCollection(
        self, request: gateway_pb2.GetCollectionRequest, context: Context
    ) -> gateway_pb2.GetCollectionResponse:
        call = await self._call(context, "documents:read")
        found = await self._pipeline.get_collection(call, request.name)
        return gateway_pb2.GetCollectionResponse(collection=found)

    async def ListCollections(
        self, request: gateway_pb2.ListCollectionsRequest, context: Context
    ) -> gateway_pb2.ListCollectionsResponse:
        call = await self._call(context, "documents:read")
        found = await self._pipeline.list_collections(call, request.page_size, request.page_token)
        return gateway_pb2.ListCollectionsResponse(
            collections=found.collections, next_page_token=found.next_page_token
        )

    async def DeleteCollection(
        self, request: gateway_pb2.DeleteCollectionRequest, context: Context
    ) -> gateway_pb2.DeleteCollectionResponse:
        call = await self._call(context, "documents:write")
        documents = await self._pipeline.delete_collection(call, request.name)
        return gateway_pb2.DeleteCollectionResponse(documents=documents)

    async def IngestDocuments(
        self, request_iterator: AsyncIterator[gateway_pb2.IngestDocumentsRequest], context: Context
    ) -> gateway_pb2.IngestDocumentsResponse:
        call = await self._call(context, "documents:write", ingest=True)
        with ExitStack() as files:
            collection, uploads = await receive(request_iterator, files, self._settings)
            results = await self._pipeline.ingest(call, collection, uploads)
        return gateway_pb2.IngestDocumentsResponse(documents=results)

    async def GetDocument(
        self, request: gateway_pb2.GetDocumentRequest, context: Context
    ) -> gateway_pb2.GetDocumentResponse:
        call = await self._call(context, "documents:read")
        found = await self._pipeline.get_document(call, request.collection, request.id)
        return gateway_pb2.GetDocumentResponse(document=found)

    async def ListDocuments(
        self, request: gateway_pb2.ListDocumentsRequest, context: Context
    ) -> gateway_pb2.ListDocumentsResponse:
        call = await self._call(context, "documents:read")
        found = await self._pipeline.list_documents(
            call, request.collection, request.page_size, request.page_token
        )
        return gateway_pb2.ListDocumentsResponse(
            documents=found.documents, next_page_token=found.next_page_token
        )

    async def DeleteDocument(
        self, request: gateway_pb2.DeleteDocumentRequest, context: Context
    ) -> gateway_pb2.DeleteDocumentResponse:
        call = await self._call(context, "documents:write")
        chunks = await self._pipeline.delete_document(call, request.collection, request.id)
        return gateway_pb2.DeleteDocumentResponse(chunks=chunks)

    async def ListModels(
        self, request: gateway_pb2.ListModelsRequest, context: Context
    ) -> gateway_pb2.ListModelsResponse:
        models = await self._pipeline.models(await self._call(context, "models:read"))
        return gateway_pb2.ListModelsResponse(models=models)


class SpooledFile:
    """A document that came in frames; on disk past a megabyte, and then read in a thread."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    async def write(self, data: bytes) -> None:
        await asyncio.to_thread(self._file.write, data)

    async def read(self, size: int = -1) -> bytes:
        return await asyncio.to_thread(self._file.read, size)

    async def seek(self, offset: int) -> None:
        self._file.seek(offset)


async def receive(
    frames: AsyncIterator[gateway_pb2.IngestDocumentsRequest],
    files: ExitStack,
    settings: GatewaySettings,
) -> tuple[str, list[Upload]]:
    """The collection's name, and the documents as they came, each in a file that `files` closes.

    Raises:
        InvalidArgument: FRAME_ORDER, FILE_REQUIRED, METADATA_TOO_LARGE, NESTED_TOO_DEEPLY.
        ResourceExhausted: TOO_MANY_DOCUMENTS, DOCUMENT_TOO_LARGE, REQUEST_TOO_LARGE.
    """
    collection: str | None = None
    facts: list[gateway_pb2.IngestDocument] = []
    spooled: list[SpooledFile] = []
    sizes: list[int] = []
    async for frame in frames:
        kind = frame.WhichOneof("frame")
        if kind == "header" and collection is None:
            collection = frame.header.collection
        elif kind == "document" and collection is not None:
            if len(facts) >= settings.max_documents:
                most = settings.max_documents
                raise too_large("TOO_MANY_DOCUMENTS", f"A call takes at most {most} documents.")
            facts.append(frame.document)
            file = files.enter_context(tempfile.SpooledTemporaryFile(max_size=MIB))  # noqa: SIM115 (the stack closes it)
            spooled.append(SpooledFile(file))
            sizes.append(0)
        elif kind == "data" and spooled:
            sizes[-1] += len(frame.data)
            if sizes[-1] > settings.max_document_bytes:
                raise too_large(
                    "DOCUMENT_TOO_LARGE",
                    f"{facts[-1].filename}: the document is larger than "
                    f"{settings.max_document_bytes} bytes.",
                    field=f"documents[{len(facts) - 1}]",
                )
            if sum(sizes) > settings.max_upload_bytes:
                most = settings.max_upload_bytes
                raise too_large("REQUEST_TOO_LARGE", f"The call is larger than {most} bytes.")
            await spooled[-1].write(frame.data)
        else:
            raise InvalidArgument(
                "FRAME_ORDER", "Send the header, then each document followed by its bytes."
            )
    if not collection or not facts:
        raise InvalidArgument("FILE_REQUIRED", "Send a collection and at least one document.")
    return collection, [
        _upload(index, document, file, size, settings)
        for index, (document, file, size) in enumerate(zip(facts, spooled, sizes, strict=True))
    ]


def _upload(
    index: int,
    document: gateway_pb2.IngestDocument,
    file: SpooledFile,
    size: int,
    settings: GatewaySettings,
) -> Upload:
    param = f"documents[{index}]"
    metadata = from_struct(document.metadata)
    check_metadata(metadata, f"{param}.metadata", settings)
    refuse_misplaced_access(metadata, param)
    return Upload(
        id=document.id or document.filename,
        filename=document.filename or document.id,
        content=FileContent(file),
        size=size,
        name=document.filename or param,
        param=param,
        content_type=document.content_type,
        title=document.title,
        source=document.filename,
        metadata=metadata,
        access=read_access(list(document.access), f"{param}.access") if document.access else (),
    )


SERVICE_NAME = gateway_pb2.DESCRIPTOR.services_by_name["RagService"].full_name
