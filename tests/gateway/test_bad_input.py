"""Nothing that a client sends gives a 500; what is wrong is named."""

import asyncio
import json

import grpc
import pytest

from gateway.errors import error_headers, error_object, spelling_of
from services.runtime.errors import SPELLINGS, error_classes
from tests.gateway.conftest import running, token

JSON = {"content-type": "application/json"}
ROUTES = (
    "/v1/query",
    "/v1/search",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/embed",
    "/v1/rerank",
    "/v1/generate",
    "/v1/summarize",
    "/v1/collections",
    "/v1/collections/docs/documents",
)
DEEP = "[" * 500 + "]" * 500
BODIES = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"{}",
    b"\xff\xfe",
    b'{"query": "\\ud800", "collection": "docs"}',
    b'{"query": NaN}',
    b'{"query": 1e999}',
    b'{"model": "\\u0000"}',
    b'{"query": "a\\u0000b", "collection": "docs"}',
    b'{"query": {"a": 1}, "collection": ["docs"]}',
    b'{"query": "x", "collection": "docs", "top_k": 99999999999999999999999}',
    b'{"query": "x", "collection": "docs", "top_k": -1}',
    b'{"query": "x", "collection": "docs", "surprise": 1}',
    b'{"text": "x", "surprise": 1}',
    b'{"name": ""}',
    b'{"messages": []}',
    b'{"messages": [{"role": "robot", "content": "x"}]}',
    b'{"messages": [{"role": "user"}]}',
    b'{"messages": [{"role": "tool", "content": "x"}]}',
    b'{"messages": [{"role": "user", "content": [{"type": "audio"}]}]}',
    b'{"messages": [{"role": "user", "content": "x"}], "seed": 99999999999999999999}',
    b'{"messages": [{"role": "user", "content": "x"}], "n": 0}',
    b'{"messages": [{"role": "user", "content": "x"}], "logit_bias": {"a": 1}}',
    b'{"messages": [{"role": "user", "content": "x"}], "extra": ' + DEEP.encode() + b"}",
    b'{"messages": [{"role": "user", "content": "x"}], "retrieval": {"collection": "d", "x": 1}}',
    b'{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema"}}',
    b'{"messages": [{"role": "user", "content": "x"}], "stream_options": {"include_usage": true}}',
    b'{"prompt": []}',
    b'{"prompt": [[1, 2]]}',
    b'{"input": []}',
    b'{"input": ""}',
    b'{"input": [-1]}',
    b'{"input": [4294967296]}',
    b'{"documents": []}',
    b'{"documents": [{"id": "a\\nb", "text": "x"}]}',
    b'{"documents": [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]}',
    b'{"documents": [{"id": "a", "text": "x", "metadata": ' + b'{"a":' * 200 + b"1" + b"}" * 200,
    b'{"documents": [{"id": "a", "text": "x", "metadata": {"a": ' + DEEP.encode() + b"}}]}",
    DEEP.encode(),
    b"[" * 100_000,
)


@pytest.mark.parametrize("path", ROUTES)
async def test_bodies(gateway, path):
    await gateway.collection()
    for body in BODIES:
        response = await gateway.client.post(path, content=body, headers=JSON)
        assert 400 <= response.status_code < 500, (path, body[:80], response.text)
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error", error


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        ("/v1/query", {"query": "x"}, "collection", "field_required"),
        ("/v1/query", {"query": "", "collection": "docs"}, "query", "field_invalid"),
        ("/v1/query", {"query": " ", "collection": "docs"}, "query", "query_empty"),
        ("/v1/query", {"query": "x" * 8001, "collection": "docs"}, "query", "field_invalid"),
        ("/v1/query", {"query": "x", "collection": "docs", "mod": 1}, "mod", "unknown_field"),
        (
            "/v1/query",
            {"query": "x", "collection": "docs", "session_id": "a b"},
            "session_id",
            "field_invalid",
        ),
        ("/v1/search", {"collection": "docs"}, "query", "field_required"),
        (
            "/v1/search",
            {"collection": "docs", "query": "x", "queries": ["y"]},
            "queries",
            "queries_invalid",
        ),
        *(
            ("/v1/search", {"query": "x", "collection": "docs", name: value}, name, "field_invalid")
            for name, value in {
                "diversity": 1.1,
                "group_by": "page",
                "group_size": 0,
                "min_score": "much",
                "relevant_only": "perhaps",
                "highlights": 3,
                "neighbors": 11,
                "explain": "why",
                "rerank": "yes please",
                "rerank_depth": 201,
            }.items()
        ),
        *(
            ("/v1/rerank", {"query": "x", "documents": ["y"], name: value}, param, code)
            for name, value, param, code in (
                ("query", "", "query", "field_invalid"),
                ("query", "x" * 8001, "query", "field_invalid"),
                ("documents", [], "documents", "field_invalid"),
                ("documents", ["x"] * 1001, "documents", "field_invalid"),
                ("documents", [{"text": "x", "id": 1}], "documents[0].id", "unknown_field"),
                (
                    "documents",
                    ["x" * 3000] * 999 + ["x" * 99_999] * 2,
                    "documents",
                    "field_invalid",
                ),
                ("documents", ["語" * 1100] * 1000, "documents", "input_too_long"),
                ("top_n", 0, "top_n", "field_invalid"),
                ("rank_fields", [], "rank_fields", "unknown_field"),
            )
        ),
        ("/v1/rerank", {"query": "x"}, "documents", "field_required"),
        ("/v1/search", {"collection": "docs", "queries": []}, "queries", "field_invalid"),
        ("/v1/search", {"collection": "docs", "queries": ["x"] * 9}, "queries", "field_invalid"),
        ("/v1/search", {"collection": "docs", "queries": ["x", ""]}, "queries[1]", "field_invalid"),
        (
            "/v1/search",
            {"query": "x", "collection": "docs", "filter": {"year": {"above": 1}}},
            "filter.year",
            "filter_invalid",
        ),
        (
            "/v1/search",
            {"query": "x", "collection": "docs", "filter": {"any": {"a": 1}}},
            "filter.any",
            "filter_invalid",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": 5}]},
            "messages[0].content",
            "field_invalid",
        ),
        (
            "/v1/chat/completions",
            {
                "messages": [{"role": "user", "content": "x"}],
                "retrieval": {"collection": "docs"},
                "n": 2,
            },
            "n",
            "parameter_unsupported",
        ),
        ("/v1/summarize", {}, "text", "field_required"),
        ("/v1/summarize", {"document_id": "a"}, "collection", "field_required"),
        (
            "/v1/collections/docs/documents",
            {"documents": [{"id": "a", "text": "x"}, {"id": "b", "txt": "x"}]},
            "documents[1].text",
            "field_required",
        ),
    ],
)
async def test_what_is_wrong_is_named(gateway, path, body, param, code):
    await gateway.collection()
    error = (await gateway.post(path, body)).json()["error"]
    assert (error["param"], error["code"]) == (param, code), error


async def test_forms(gateway):
    await gateway.collection()
    path = "/v1/collections/docs/documents"
    post = gateway.client.post
    good = [("file", ("a.md", b"A"))]
    assert (await post(path, files=[("document", ("a.md", b"A"))])).status_code == 400
    assert (await post(path, files=good, data={"colour": "red"})).status_code == 400
    for metadata in ("{", "1", "[]", '{"id": 5}', '{"id": ""}', '{"a": "\\u0000"}', '{"id":"\\n"}'):
        response = await post(path, files=good, data={"metadata": metadata})
        assert response.status_code == 400, metadata
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert (await post(path, content=b"--y nonsense", headers=broken)).status_code == 400
    no_boundary = {"content-type": "multipart/form-data"}
    assert (await post(path, content=b"x", headers=no_boundary)).status_code == 400
    text = {"content-type": "text/plain"}
    assert (await post(path, content=b"x", headers=text)).status_code == 415


async def test_routes(gateway):
    client = gateway.client
    for path in ("/v1/tasks", "/v1/admin/config", "/nothing", "/v1/query/"):
        response = await client.get(path)
        assert response.status_code == 404, path
        assert response.json()["error"]["code"] == "route_not_found"
    response = await client.get("/v1/query")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.json()["error"]["code"] == "method_not_allowed"
    response = await client.post("/v1/query", content=b"query=x")
    assert response.status_code == 415
    for path in (
        "/v1/collections/a%00b",
        "/v1/collections/docs/documents/%ff%00",
        "/v1/models/%00",
    ):
        assert (await client.get(path)).status_code in {400, 404}, path
    for limit in ("0", "-1", "1001", "x", "9" * 5000, "²"):
        response = await client.get("/v1/collections", params={"limit": limit})
        assert response.json()["error"]["param"] == "limit", limit


async def test_tokens(gateway):
    client = gateway.client
    missing = await client.get("/v1/models", headers={"authorization": ""})
    assert missing.status_code == 401
    assert missing.headers["www-authenticate"] == "Bearer"
    assert missing.json()["error"]["type"] == "authentication_error"
    invalid = await client.get("/v1/models", headers={"authorization": "Bearer x.y.z"})
    assert invalid.status_code == 401
    assert invalid.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    expired = await client.get("/v1/models", headers={"authorization": f"Bearer {token(exp=1)}"})
    assert expired.json()["error"]["code"] == "token_expired"


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/query", "chat"),
        ("POST", "/v1/query", "search"),
        ("POST", "/v1/search", "chat"),
        ("POST", "/v1/chat/completions", "search"),
        ("POST", "/v1/embeddings", "chat"),
        ("POST", "/v1/rerank", "chat"),
        ("GET", "/v1/models", "chat"),
        ("GET", "/v1/collections", "documents:write"),
        ("POST", "/v1/collections", "documents:read"),
        ("POST", "/v1/collections/docs/documents", "documents:read"),
        ("DELETE", "/v1/collections/docs/documents/a", "documents:read"),
        ("GET", "/v1/sessions/a", "search"),
    ],
)
async def test_scopes(gateway, method, path, scope):
    headers = {"authorization": f"Bearer {token(scope=scope)}"}
    response = await gateway.client.request(method, path, headers=headers)
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "scope_missing"


async def test_retrieval_in_a_chat_needs_search(gateway):
    headers = {"authorization": f"Bearer {token(scope='chat')}"}
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "retrieval": {"collection": "docs"},
    }
    response = await gateway.client.post("/v1/chat/completions", json=body, headers=headers)
    assert response.status_code == 403


@pytest.mark.parametrize("error", list(error_classes()), ids=lambda each: each.code)
def test_every_error_is_spelled(error):
    made = error("SOME_REASON", "Something.", field="a.b", retry_after=0.25)
    spelling = SPELLINGS[error.code]
    assert spelling_of(made).status == spelling.http_status
    assert error_object(made) == {
        "error": {
            "message": "Something.",
            "type": spelling.openai_type,
            "param": "a.b",
            "code": "some_reason",
        }
    }
    headers = error_headers(made)
    assert headers["x-should-retry"] == ("true" if spelling.retry_helps else "false")
    assert ("retry-after" in headers) == spelling.retry_helps
    if spelling.retry_helps:
        assert headers["retry-after"] == "1"
        assert headers["retry-after-ms"] == "250"


def test_every_code_is_known():
    assert set(SPELLINGS) == {code.name for code in grpc.StatusCode} - {"OK"}


async def test_headers(gateway):
    for path in ("/health/live", "/nothing", "/v1/models", "/"):
        response = await gateway.client.get(path, headers={"x-request-id": "my-id"})
        assert response.headers["x-request-id"] == "my-id"
        assert response.headers["x-ragmesh-version"]
    for bad in ("a b", "x" * 200, "é"):
        headers = [(b"x-request-id", bad.encode())]
        response = await gateway.client.get("/health/live", headers=headers)
        assert len(response.headers["x-request-id"]) == 32
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    response = await gateway.client.get("/health/live", headers={"traceparent": trace})
    assert trace.split("-")[1] in response.headers["traceparent"]


async def test_pages_work_offline(gateway):
    for path in ("/", "/docs"):
        page = await gateway.client.get(path, headers={"authorization": ""})
        assert page.status_code == 200
        assert "http://" not in page.text.replace("http://www.w3.org", "")
        assert "https://" not in page.text
    document = (await gateway.client.get("/openapi.json", headers={"authorization": ""})).json()
    assert document["paths"]["/v1/query"]["post"]["x-required-scopes"] == ["chat", "search"]
    json.dumps(document)


@pytest.mark.parametrize("service", ["preprocess", "retrieve", "infer", "postprocess"])
async def test_a_service_that_is_down(tmp_path, service):
    async with running(tmp_path, down=(service,)) as gateway:
        gateway.mesh.retrieve.collections[_tenant(gateway), "docs"] = {}
        response = await gateway.post("/v1/query", {"query": "x", "collection": "docs"})
        assert response.status_code == 503
        assert service in response.json()["error"]["message"]
        assert response.json()["error"]["code"] == "service_unavailable"
        assert response.headers["retry-after"] == "1"
        health = (await gateway.client.get("/health")).json()
        assert health["status"] == "degraded"
        assert [name for name, each in health["services"].items() if not each["available"]] == [
            service
        ]
        ready = await gateway.client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["missing"] == [service]
        assert (await gateway.client.get("/health/live")).status_code == 200


async def test_health(gateway):
    health = (await gateway.client.get("/health", headers={"authorization": ""})).json()
    assert health["status"] == "ok"
    assert health["services"]["retrieve"] == {
        "available": True,
        "version": "1",
        "vector_backend": "fake",
        "embedding_backend": "fake",
    }
    assert health["services"]["infer"]["model_backend"] == "fake"
    assert (await gateway.client.get("/health/ready")).status_code == 200


async def test_the_budget_bounds_a_request(tmp_path):
    async with running(tmp_path, request_budget=0.3) as gateway:
        await gateway.collection()
        gateway.mesh.retrieve.gate = asyncio.Event()
        response = await gateway.post("/v1/query", {"query": "x", "collection": "docs"})
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "deadline_exceeded"
        await asyncio.wait_for(gateway.mesh.retrieve.cancelled.wait(), 5)


def _tenant(gateway) -> str:
    principal = gateway.state.authenticator.authenticate(f"Bearer {token()}")
    return principal.tenant_id
