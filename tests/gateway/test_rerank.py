"""Reranking at both faces: what searches, answers and chats say of it, and ``/v1/rerank``."""

import json

import grpc
import pytest

from ragmesh.gateway.v1 import gateway_pb2
from ragmesh.retrieve.v1 import retrieve_pb2
from services.runtime.status import error_from_rpc
from tests.gateway.conftest import running, token

QUERY = {"query": "Is tea hot?", "collection": "docs", "rerank": True}
CHAT = {
    "messages": [{"role": "user", "content": "Is tea hot?"}],
    "retrieval": {"collection": "docs", "rerank": True},
}
APPLIED = {
    "status": "applied",
    "model": "fake-reranker",
    "reason": None,
    "candidates": 2,
    "milliseconds": 12.5,
}
METADATA = [("authorization", f"Bearer {token()}")]


def applied():
    return retrieve_pb2.Reranking(
        status=retrieve_pb2.RERANK_STATUS_APPLIED, model="fake-reranker", candidates=2,
        seconds=0.0125,
    )  # fmt: skip


@pytest.fixture
async def gateway(tmp_path):
    async with running(tmp_path) as started:
        await started.collection()
        started.mesh.retrieve.reranker = True
        started.mesh.retrieve.reranked = applied()
        yield started


async def test_a_search_says_what_the_reranker_did(gateway):
    response = await gateway.post("/v1/search", {**QUERY, "rerank_depth": 40})
    asked = gateway.mesh.retrieve.searches[-1]
    assert (asked.rerank, asked.rerank_depth) == (True, 40)
    body = response.json()
    assert body["rerank"] == APPLIED
    assert [hit["document_id"] for hit in body["hits"]] == ["ice", "tea"]
    assert [hit["scores"]["rerank"] for hit in body["hits"]] == [0.2, 0.1]
    assert [hit["score"] for hit in body["hits"]] == [0.5, 0.5]
    assert "rerank;dur=12.5" in response.headers["server-timing"]


async def test_one_that_did_not_ask_says_nothing(gateway):
    response = await gateway.post("/v1/search", {**QUERY, "rerank": False})
    assert not gateway.mesh.retrieve.searches[-1].rerank
    assert "rerank" not in response.json()
    assert "rerank" not in response.json()["hits"][0]["scores"]
    assert "rerank" not in response.headers["server-timing"]


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        ("TIMED_OUT", "RERANK_TIMED_OUT", "timed_out"),
        ("FAILED", "RERANKER_UNAVAILABLE", "failed"),
        ("SKIPPED", "LANGUAGE_NOT_COVERED", "skipped"),
    ],
)
async def test_why_it_was_not_applied(gateway, status, reason, said):
    gateway.mesh.retrieve.reranked = retrieve_pb2.Reranking(
        status=f"RERANK_STATUS_{status}", model="fake-reranker", reason=reason
    )
    rerank = (await gateway.post("/v1/search", QUERY)).json()["rerank"]
    assert (rerank["status"], rerank["reason"]) == (said, reason.lower())


def test_every_status_has_a_spelling():
    from gateway.reranking import STATUSES

    named = {one for one in retrieve_pb2.RerankStatus.values() if one}
    assert STATUSES.keys() == named


async def test_an_answer_says_it_too(gateway):
    body = (await gateway.post("/v1/query", QUERY)).json()
    assert body["rerank"] == APPLIED
    assert body["timings"]["rerank"] == 12.5
    assert [one.document_id for one in gateway.mesh.infer.requests[-1].passages] == ["ice", "tea"]
    streamed = (await gateway.post("/v1/query", {**QUERY, "stream": True})).text
    events = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: ")]
    assert events[0]["rerank"] == APPLIED
    assert [one["marker"] for one in events[0]["sources"]] == [1, 2]
    assert events[-1]["rerank"] == APPLIED


async def test_a_chat_says_it_with_its_citations(gateway):
    body = (await gateway.post("/v1/chat/completions", CHAT)).json()
    assert body["choices"][0]["message"]["rerank"] == APPLIED
    streamed = (await gateway.post("/v1/chat/completions", {**CHAT, "stream": True})).text
    chunks = [json.loads(line[6:]) for line in streamed.splitlines()
              if line.startswith("data: {")]  # fmt: skip
    (last,) = [one for one in chunks if one["choices"] and one["choices"][0]["finish_reason"]]
    assert last["choices"][0]["delta"]["rerank"] == APPLIED


async def test_over_grpc(gateway):
    retrieval = gateway_pb2.Retrieval(collection="docs", rerank=True, rerank_depth=40)
    search = gateway_pb2.SearchRequest(query="tea", retrieval=retrieval)
    found = await gateway.rag.Search(search, metadata=METADATA)
    assert found.rerank == applied()
    assert gateway.mesh.retrieve.searches[-1].rerank_depth == 40
    query = gateway_pb2.QueryRequest(query="tea", retrieval=retrieval)
    answered = await gateway.rag.Query(query, metadata=METADATA)
    assert answered.rerank == applied()
    plain = gateway_pb2.SearchRequest(
        query="tea", retrieval=gateway_pb2.Retrieval(collection="docs")
    )
    assert not (await gateway.rag.Search(plain, metadata=METADATA)).HasField("rerank")


async def test_documents_by_relevance(gateway):
    documents = ["Tea.", {"text": "Tea is hot."}, "Ice"]
    response = await gateway.post("/v1/rerank", {"query": "tea", "documents": documents})
    assert response.status_code == 200
    assert response.json() == {
        "model": "fake-reranker",
        "results": [
            {"index": 1, "relevance_score": 0.11},
            {"index": 0, "relevance_score": 0.04},
            {"index": 2, "relevance_score": 0.03},
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 0, "total_tokens": 12},
    }
    asked = gateway.mesh.retrieve.reranks[-1]
    assert (asked.model, asked.query, asked.top_n) == ("default-reranker", "tea", 0)
    assert list(asked.documents) == ["Tea.", "Tea is hot.", "Ice"]
    more = {"model": "fake-reranker", "top_n": 1, "return_documents": True}
    response = await gateway.post("/v1/rerank", {"query": "tea", "documents": documents, **more})
    assert response.json()["results"] == [
        {"index": 1, "relevance_score": 0.11, "document": {"text": "Tea is hot."}}
    ]
    assert gateway.mesh.retrieve.reranks[-1].model == "fake-reranker"


async def test_documents_by_relevance_over_grpc(gateway):
    rerank = retrieve_pb2.RerankRequest(query="tea", documents=["Tea.", "Tea is hot."], top_n=1)
    request = gateway_pb2.RerankRequest(rerank=rerank)
    made = (await gateway.rag.Rerank(request, metadata=METADATA)).rerank
    assert [one.index for one in made.results] == [1]
    request.rerank.documents[:] = ["x" * 1024] * 3 * 1024 + ["y"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.rag.Rerank(request, metadata=METADATA)
    error = error_from_rpc(caught.value)
    assert (error.reason, error.field) == ("INPUT_TOO_LONG", "documents")
    denied = [("authorization", f"Bearer {token(scope='chat')}")]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.rag.Rerank(request, metadata=denied)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_without_a_reranker_it_is_a_clear_400(gateway):
    gateway.mesh.retrieve.reranker = False
    response = await gateway.post("/v1/rerank", {"query": "tea", "documents": ["Tea."]})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "reranker_not_configured"
    assert response.headers["x-should-retry"] == "false"


async def test_tokens_are_counted(gateway):
    body = {"query": "tea", "documents": ["Tea is hot."]}
    await gateway.post("/v1/rerank", body)
    gateway.mesh.retrieve.rerank_tokens = 0  # a remote one that does not say
    await gateway.post("/v1/rerank", body)
    (row,) = (await gateway.client.get("/v1/usage")).json()["usage"]
    assert (row["model"], row["requests"], row["estimated"]) == ("fake-reranker", 2, 1)
    assert row["prompt_tokens"] == 12 + 1 + 4


async def test_tokens_are_limited(tmp_path):
    async with running(tmp_path, tenant_tokens_per_minute=20) as gateway:
        gateway.mesh.retrieve.reranker = True
        body = {"query": "tea", "documents": ["Tea is hot."]}
        response = await gateway.post("/v1/rerank", body)
        assert response.status_code == 200
        assert response.headers["x-ratelimit-remaining-tokens"] == "8"
        await gateway.post("/v1/rerank", body)
        response = await gateway.post("/v1/rerank", body)
        assert response.status_code == 429
        assert response.json()["error"]["code"] == "token_limit_exceeded"
        assert len(gateway.mesh.retrieve.reranks) == 2


async def test_it_is_listed(gateway):
    listed = (await gateway.client.get("/v1/models")).json()["data"]
    targets = {one["id"]: one["target"] for one in listed}
    assert targets["fake-reranker"] is None
    assert targets["default-reranker"] == "fake-reranker"
