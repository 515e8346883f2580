"""One short function per remote call: the budget becomes the timeout, a failed RPC the error it
stands for. Retries are the channel's, order is the pipeline's."""

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from contextlib import aclosing
from typing import Any, Final, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.errors import too_large
from gateway.exchange import Call
from gateway.settings import SERVICES, GatewaySettings
from ragmesh.infer.v1 import infer_pb2, infer_pb2_grpc
from ragmesh.postprocess.v1 import postprocess_pb2, postprocess_pb2_grpc
from ragmesh.preprocess.v1 import preprocess_pb2, preprocess_pb2_grpc
from ragmesh.retrieve.v1 import retrieve_pb2, retrieve_pb2_grpc
from services.runtime.channel import connect
from services.runtime.errors import DeadlineExceeded, RagmeshError, Unavailable
from services.runtime.limits import UPLOAD_FRAME_BYTES
from services.runtime.status import UNREACHABLE_RETRY_SECONDS, error_from_rpc

T = TypeVar("T")

IDEMPOTENT: Final = {
    "preprocess": ("PlanQuery", "GetServerInfo"),
    "retrieve": (
        "Search", "Embed", "Rerank", "Score", "CheckDocuments", "GetDocument", "ListDocuments",
        "ListChunks", "GetCollection", "ListCollections", "ListModels", "GetServerInfo",
        "DeleteTenant", "GetTenantContents",
    ),
    "infer": ("ListModels", "GetServerInfo"),
    "postprocess": ("ProcessAnswer", "GetServerInfo"),
}  # fmt: skip
"""Unary methods that the channel may repeat when a service cannot be reached."""


class Mesh:
    """Channels and stubs of the four services."""

    def __init__(self, channels: dict[str, grpc.aio.Channel]) -> None:
        self.channels = channels
        self.preprocess = preprocess_pb2_grpc.PreprocessServiceStub(channels["preprocess"])
        self.retrieve = retrieve_pb2_grpc.RetrieveServiceStub(channels["retrieve"])
        self.infer = infer_pb2_grpc.InferServiceStub(channels["infer"])
        self.postprocess = postprocess_pb2_grpc.PostprocessServiceStub(channels["postprocess"])

    async def aclose(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self.channels.values()))


def connect_mesh(settings: GatewaySettings) -> Mesh:
    """Channels as the settings say; none connects before it is used."""
    return Mesh(
        {
            service: connect(
                settings.target(service),
                tls=settings.tls,
                authority=service,
                idempotent=[
                    f"ragmesh.{service}.v1.{service.capitalize()}Service/{method}"
                    for method in IDEMPOTENT[service]
                ],
            )
            for service in SERVICES
        }
    )


def error_of(service: str, rpc_error: grpc.aio.AioRpcError) -> RagmeshError:
    """The error behind a failed call of a service, naming the service where it names nothing."""
    error = error_from_rpc(rpc_error)
    if error.reason != error.code:
        return error
    if error.code in {"UNAVAILABLE", "CANCELLED"}:  # CANCELLED: the service ended, not we
        return _unavailable(service)
    if error.code == "DEADLINE_EXCEEDED":
        return DeadlineExceeded(
            "DEADLINE_EXCEEDED", f"The {service} service did not answer in time."
        )
    if error.code == "RESOURCE_EXHAUSTED":  # gRPC's own: a message over the limit
        return too_large("REQUEST_TOO_LARGE", f"The request is too large for {service}.")
    return error


def _unavailable(service: str) -> RagmeshError:
    return Unavailable(
        "SERVICE_UNAVAILABLE",
        f"The {service} service is not available.",
        retry_after=UNREACHABLE_RETRY_SECONDS,
    )


def _is_ours() -> bool:
    """Whether a CancelledError means this task. A call that the service cancelled, as it does
    when it is stopped, looks the same in grpc.aio."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def _unary(call: Call, service: str, rpc: Awaitable[T]) -> T:
    started = time.perf_counter()
    try:
        return await rpc
    except grpc.aio.AioRpcError as error:
        raise error_of(service, error) from None
    except asyncio.CancelledError:
        if _is_ours():
            raise
        raise _unavailable(service) from None
    finally:
        call.add(service, started)


# preprocess


async def plan_query(
    call: Call, mesh: Mesh, request: preprocess_pb2.PlanQueryRequest
) -> preprocess_pb2.PlanQueryResponse:
    """A query that stands alone, or what to ask a model for."""
    timeout = call.budget.hop()
    rpc = mesh.preprocess.PlanQuery(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "preprocess", rpc)


async def process_document(
    call: Call,
    mesh: Mesh,
    header: preprocess_pb2.DocumentHeader,
    data: AsyncIterable[bytes],
    tokenizer: Callable[[], Awaitable[bytes]],
) -> tuple[preprocess_pb2.DocumentInfo, list[preprocess_pb2.Chunk]]:
    """Parse one document and cut it into chunks.

    Args:
        data: its bytes, in frames of at most 64 KiB.
        tokenizer: gets the file of the tokenizer that the header names, when asked for it.
    """
    frame = preprocess_pb2.ProcessDocumentRequest
    info = preprocess_pb2.DocumentInfo()
    chunks: list[preprocess_pb2.Chunk] = []
    rpc = mesh.preprocess.ProcessDocument(timeout=call.budget.hop(), metadata=call.metadata)
    started = time.perf_counter()
    try:
        await rpc.write(frame(header=header))
        ready: Any = await rpc.read()
        if ready is not grpc.aio.EOF and ready.ready.tokenizer_needed:
            for piece in frames(await tokenizer()):
                await rpc.write(frame(tokenizer=piece))
        async for piece in data:
            await rpc.write(frame(data=piece))
        await rpc.done_writing()
        async for response in rpc:
            match response.WhichOneof("frame"):
                case "document":
                    info = response.document
                case "chunks":
                    chunks.extend(response.chunks.chunks)
                case _:
                    pass
    except asyncio.InvalidStateError:
        # The service ended the call while frames were on their way: its status says why.
        await _raise_status("preprocess", rpc)
    except grpc.aio.AioRpcError as error:
        raise error_of("preprocess", error) from None
    except asyncio.CancelledError:
        if _is_ours():
            raise
        raise _unavailable("preprocess") from None
    finally:
        rpc.cancel()
        call.add("preprocess", started)
    return info, chunks


async def _raise_status(service: str, rpc: Any) -> None:
    code = await rpc.code()
    error = grpc.aio.AioRpcError(
        code, await rpc.initial_metadata(), await rpc.trailing_metadata(), await rpc.details()
    )
    raise error_of(service, error)


def frames(data: bytes) -> Iterable[bytes]:
    """A file in frames of an upload."""
    for start in range(0, len(data), UPLOAD_FRAME_BYTES):
        yield data[start : start + UPLOAD_FRAME_BYTES]


# retrieve


async def search(
    call: Call, mesh: Mesh, request: retrieve_pb2.SearchRequest
) -> retrieve_pb2.SearchResponse:
    timeout = call.budget.hop()
    rpc = mesh.retrieve.Search(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


async def embed(
    call: Call, mesh: Mesh, request: retrieve_pb2.EmbedRequest
) -> retrieve_pb2.EmbedResponse:
    timeout = call.budget.hop()
    rpc = mesh.retrieve.Embed(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


async def rerank(
    call: Call, mesh: Mesh, request: retrieve_pb2.RerankRequest
) -> retrieve_pb2.RerankResponse:
    timeout = call.budget.hop()
    rpc = mesh.retrieve.Rerank(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


async def check_documents(
    call: Call, mesh: Mesh, request: retrieve_pb2.CheckDocumentsRequest
) -> retrieve_pb2.CheckDocumentsResponse:
    timeout = call.budget.hop()
    rpc = mesh.retrieve.CheckDocuments(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


async def index_documents(
    call: Call, mesh: Mesh, requests: AsyncIterator[retrieve_pb2.IndexDocumentsRequest]
) -> AsyncGenerator[retrieve_pb2.IndexDocumentsResponse, None]:
    """One acknowledgement a document, once it is durable and searchable."""
    rpc = mesh.retrieve.IndexDocuments(requests, timeout=call.budget.hop(), metadata=call.metadata)
    async with aclosing(_stream(call, "retrieve", rpc)) as responses:
        async for response in responses:
            yield response


async def export_documents(
    call: Call, mesh: Mesh, request: retrieve_pb2.ExportDocumentsRequest
) -> AsyncGenerator[retrieve_pb2.ExportDocumentsResponse, None]:
    """A header, then documents by id, each followed by its chunks."""
    rpc = mesh.retrieve.ExportDocuments(request, timeout=call.budget.hop(), metadata=call.metadata)
    async with aclosing(_stream(call, "retrieve", rpc)) as responses:
        async for response in responses:
            yield response


async def reindex_collection(
    call: Call, mesh: Mesh, request: retrieve_pb2.ReindexCollectionRequest
) -> AsyncGenerator[retrieve_pb2.ReindexCollectionResponse, None]:
    """How far it is; the last one with the collection."""
    timeout = call.budget.hop()
    rpc = mesh.retrieve.ReindexCollection(request, timeout=timeout, metadata=call.metadata)
    async with aclosing(_stream(call, "retrieve", rpc)) as responses:
        async for response in responses:
            yield response


async def move_document(
    call: Call, mesh: Mesh, request: retrieve_pb2.MoveDocumentRequest
) -> retrieve_pb2.MoveDocumentResponse:
    """Give a document another id, title, source or metadata."""
    timeout = call.budget.hop()
    rpc = mesh.retrieve.MoveDocument(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


async def get_tokenizer(call: Call, mesh: Mesh, tokenizer_id: str) -> bytes:
    """A tokenizer's file."""
    request = retrieve_pb2.GetTokenizerRequest(tokenizer_id=tokenizer_id)
    rpc = mesh.retrieve.GetTokenizer(request, timeout=call.budget.hop(), metadata=call.metadata)
    async with aclosing(_stream(call, "retrieve", rpc)) as responses:
        return b"".join([response.data async for response in responses])


async def get_document(
    call: Call, mesh: Mesh, request: retrieve_pb2.GetDocumentRequest
) -> retrieve_pb2.GetDocumentResponse:
    timeout = call.budget.hop()
    rpc = mesh.retrieve.GetDocument(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


async def list_documents(
    call: Call, mesh: Mesh, request: retrieve_pb2.ListDocumentsRequest
) -> retrieve_pb2.ListDocumentsResponse:
    timeout = call.budget.hop()
    rpc = mesh.retrieve.ListDocuments(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


async def list_chunks(
    call: Call, mesh: Mesh, request: retrieve_pb2.ListChunksRequest
) -> retrieve_pb2.ListChunksResponse:
    timeout = call.budget.hop()
    rpc = mesh.retrieve.ListChunks(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


async def delete_document(
    call: Call, mesh: Mesh, request: retrieve_pb2.DeleteDocumentRequest
) -> retrieve_pb2.DeleteDocumentResponse:
    timeout = call.budget.hop()
    rpc = mesh.retrieve.DeleteDocument(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


async def create_collection(
    call: Call, mesh: Mesh, request: retrieve_pb2.CreateCollectionRequest
) -> retrieve_pb2.CreateCollectionResponse:
    timeout = call.budget.hop()
    rpc = mesh.retrieve.CreateCollection(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


async def get_collection(
    call: Call, mesh: Mesh, request: retrieve_pb2.GetCollectionRequest
) -> retrieve_pb2.GetCollectionResponse:
    timeout = call.budget.hop()
    rpc = mesh.retrieve.GetCollection(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


async def list_collections(
    call: Call, mesh: Mesh, request: retrieve_pb2.ListCollectionsRequest
) -> retrieve_pb2.ListCollectionsResponse:
    timeout = call.budget.hop()
    rpc = mesh.retrieve.ListCollections(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


async def delete_collection(
    call: Call, mesh: Mesh, request: retrieve_pb2.DeleteCollectionRequest
) -> retrieve_pb2.DeleteCollectionResponse:
    timeout = call.budget.hop()
    rpc = mesh.retrieve.DeleteCollection(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


async def delete_tenant(
    call: Call, mesh: Mesh, request: retrieve_pb2.DeleteTenantRequest
) -> retrieve_pb2.DeleteTenantResponse:
    """Delete all that the call's tenant has."""
    timeout = call.budget.hop()
    rpc = mesh.retrieve.DeleteTenant(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


async def get_tenant_contents(
    call: Call, mesh: Mesh, request: retrieve_pb2.GetTenantContentsRequest
) -> retrieve_pb2.GetTenantContentsResponse:
    """Count what the call's tenant has."""
    timeout = call.budget.hop()
    rpc = mesh.retrieve.GetTenantContents(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


async def list_encoders(call: Call, mesh: Mesh) -> retrieve_pb2.ListModelsResponse:
    """The encoders and rerankers."""
    request = retrieve_pb2.ListModelsRequest()
    rpc = mesh.retrieve.ListModels(request, timeout=call.budget.hop(), metadata=call.metadata)
    return await _unary(call, "retrieve", rpc)


# infer


def generate(
    call: Call, mesh: Mesh, request: infer_pb2.GenerateRequest, *, at_most: float | None = None
) -> AsyncGenerator[infer_pb2.GenerateResponse, None]:
    """The events of a generation. Closing the generator aborts the engine's request.

    Args:
        at_most: seconds that this generation may take of the budget.
    """
    timeout = call.budget.hop(at_most=at_most)
    rpc = mesh.infer.Generate(request, timeout=timeout, metadata=call.metadata)
    return _stream(call, "infer", rpc)


async def list_engine_models(call: Call, mesh: Mesh) -> infer_pb2.ListModelsResponse:
    """Aliases and models of the engines."""
    request = infer_pb2.ListModelsRequest()
    rpc = mesh.infer.ListModels(request, timeout=call.budget.hop(), metadata=call.metadata)
    return await _unary(call, "infer", rpc)


# postprocess


async def process_answer(
    call: Call, mesh: Mesh, request: postprocess_pb2.ProcessAnswerRequest
) -> postprocess_pb2.ProcessAnswerResponse:
    """Citations and confidence."""
    timeout = call.budget.hop()
    rpc = mesh.postprocess.ProcessAnswer(request, timeout=timeout, metadata=call.metadata)
    return await _unary(call, "postprocess", rpc)


# every service


async def is_serving(mesh: Mesh, service: str, timeout: float) -> bool:
    """What the service's own health says; False when it does not answer."""
    stub: Any = health_pb2_grpc.HealthStub(mesh.channels[service])
    try:
        response = await stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
    except grpc.aio.AioRpcError:
        return False
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


async def server_info(mesh: Mesh, service: str, timeout: float) -> Any:
    """The service's GetServerInfoResponse, or None when it does not answer."""
    stubs: dict[str, tuple[Any, Any]] = {
        "preprocess": (mesh.preprocess, preprocess_pb2),
        "retrieve": (mesh.retrieve, retrieve_pb2),
        "infer": (mesh.infer, infer_pb2),
        "postprocess": (mesh.postprocess, postprocess_pb2),
    }
    stub, messages = stubs[service]
    try:
        return await stub.GetServerInfo(messages.GetServerInfoRequest(), timeout=timeout)
    except grpc.aio.AioRpcError:
        return None


async def _stream(call: Call, service: str, rpc: Any) -> AsyncGenerator[Any, None]:
    """A stream's responses; the service's time is counted, the consumer's is not."""
    try:
        responses = aiter(rpc)
        while True:
            started = time.perf_counter()
            try:
                response = await anext(responses)
            except StopAsyncIteration:
                return
            finally:
                call.add(service, started)
            yield response
    except grpc.aio.AioRpcError as error:
        raise error_of(service, error) from None
    except asyncio.CancelledError:
        if _is_ours():
            raise
        raise _unavailable(service) from None
    finally:
        rpc.cancel()
