"""RagService is the same pipeline: the same answers, the same refusals."""

import asyncio

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct

from ragmesh.gateway.v1 import gateway_pb2
from ragmesh.infer.v1 import infer_pb2
from ragmesh.retrieve.v1 import retrieve_pb2
from ragmesh.type.v1 import chat_pb2
from services.runtime.status import error_from_rpc
from tests.gateway.conftest import token
from tests.gateway.mesh import delta, started

RETRIEVAL = gateway_pb2.Retrieval(collection="docs")
QUESTION = gateway_pb2.QueryRequest(query="Is tea hot?", retrieval=RETRIEVAL)
BEARER = (("authorization", f"Bearer {token()}"),)


async def refused(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value).reason


async def test_query_answers_as_rest_does(gateway):
    await gateway.collection()
    rest = (await gateway.post("/v1/query", {"query": "Is tea hot?", "collection": "docs"})).json()
    rpc = await gateway.rag.Query(QUESTION, metadata=BEARER)
    assert rpc.answer == rest["answer"]
    assert rpc.confidence == rest["confidence"]
    assert [each.quote for each in rpc.citations] == [each["quote"] for each in rest["citations"]]
    assert set(rpc.timings) == set(rest["timings"])


async def test_stream_query(gateway):
    await gateway.collection()
    request = gateway_pb2.StreamQueryRequest(query=QUESTION)
    kinds = [
        event.WhichOneof("event")
        async for event in gateway.rag.StreamQuery(request, metadata=BEARER)
    ]
    assert kinds == ["sources", "delta", "delta", "done"]


async def test_chat(gateway):
    await gateway.collection()
    message = chat_pb2.ChatMessage(
        role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="Is tea hot?")]
    )
    request = gateway_pb2.ChatRequest(
        generate=infer_pb2.GenerateRequest(messages=[message]), retrieval=RETRIEVAL
    )
    events = [event async for event in gateway.rag.Chat(request, metadata=BEARER)]
    kinds = [event.generated.WhichOneof("event") or event.WhichOneof("event") for event in events]
    assert kinds == ["started", "delta", "delta", "citations", "finish", "usage"]
    assert events[3].citations.citations[0].document_id == "tea"


async def test_documents(gateway):
    rag = gateway.rag
    asked = gateway_pb2.CreateCollectionRequest(
        collection=retrieve_pb2.CreateCollectionRequest(name="docs")
    )
    await rag.CreateCollection(asked, metadata=BEARER)
    frame = gateway_pb2.IngestDocumentsRequest
    metadata = Struct()
    metadata.update({"year": 2024})

    async def frames():
        yield frame(header=gateway_pb2.IngestHeader(collection="docs"))
        yield frame(document=gateway_pb2.IngestDocument(filename="a.md", metadata=metadata))
        yield frame(data=b"One\n\n")
        yield frame(data=b"Two")
        yield frame(document=gateway_pb2.IngestDocument(id="b", filename="b.md"))
        yield frame(data=b"Three")

    for status in (retrieve_pb2.INDEX_STATUS_INDEXED, retrieve_pb2.INDEX_STATUS_UNCHANGED):
        made = await rag.IngestDocuments(frames(), metadata=BEARER)
        assert [(each.id, each.chunks) for each in made.documents] == [("a.md", 2), ("b", 1)]
        assert {each.status for each in made.documents} == {status}
    wanted = gateway_pb2.GetDocumentRequest(collection="docs", id="a.md")
    document = (await rag.GetDocument(wanted, metadata=BEARER)).document
    assert dict(document.metadata) == {"year": 2024}
    rest = (await gateway.client.get("/v1/collections/docs/documents/a.md")).json()
    assert rest["metadata"] == {"year": 2024}
    listed = await rag.ListDocuments(
        gateway_pb2.ListDocumentsRequest(collection="docs", page_size=10), metadata=BEARER
    )
    assert len(listed.documents) == 2


async def test_refusals_are_the_same(gateway):
    rag = gateway.rag
    assert await refused(rag.Query(QUESTION)) == "TOKEN_MISSING"
    forged = (("x-ragmesh-tenant", "acme"), ("authorization", "Bearer x.y.z"))
    assert await refused(rag.Query(QUESTION, metadata=forged)) == "TOKEN_INVALID"
    chat_only = (("authorization", f"Bearer {token(scope='chat')}"),)
    assert await refused(rag.Query(QUESTION, metadata=chat_only)) == "SCOPE_MISSING"
    assert await refused(rag.Query(QUESTION, metadata=BEARER)) == "COLLECTION_NOT_FOUND"
    await gateway.collection()
    greedy = gateway_pb2.QueryRequest(
        query="x", retrieval=gateway_pb2.Retrieval(collection="docs", top_k=101)
    )
    assert await refused(rag.Query(greedy, metadata=BEARER)) == "TOP_K_OUT_OF_RANGE"
    nowhere = gateway_pb2.QueryRequest(query="x")
    assert await refused(rag.Query(nowhere, metadata=BEARER)) == "COLLECTION_REQUIRED"
    header = gateway_pb2.IngestHeader(collection="docs")
    empty = [gateway_pb2.IngestDocumentsRequest(header=header)]
    assert await refused(rag.IngestDocuments(iter(empty), metadata=BEARER)) == "FILE_REQUIRED"


async def test_a_cancelled_call_stops_the_engine(gateway):
    await gateway.collection()
    gateway.mesh.infer.script = [started(), delta("Tea"), asyncio.Event()]
    call = gateway.rag.Query(QUESTION, metadata=BEARER)
    waiting = asyncio.ensure_future(call.code())
    await asyncio.wait_for(gateway.mesh.infer.running.wait(), 5)
    call.cancel()
    await asyncio.wait_for(gateway.mesh.infer.cancelled.wait(), 5)
    assert await waiting == grpc.StatusCode.CANCELLED
