"""Limits as clients meet them, over REST and RagService."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from ragmesh.gateway.v1 import gateway_pb2
from ragmesh.type.v1 import chat_pb2
from tests.gateway.conftest import running, token
from tests.gateway.limits.stopwatch import early_in_the_minute
from tests.gateway.mesh import delta, finish, started, usage

EDGE = """
_format_version: "3.0"
consumers: []
services:
  - name: gateway
    routes:
      - name: v1
        paths: ["/v1"]
        plugins:
          - {name: jwt}
          - {name: rate-limiting, config: {minute: 3, hour: 100, policy: local}}
      - name: health
        paths: ["/health"]
      - name: rag
        protocols: [grpc, grpcs]
        paths: ["/ragmesh.gateway.v1.RagService/"]
        plugins:
          - {name: jwt}
          - {name: rate-limiting, config: {minute: 2, policy: local}}
"""
CHAT = {"messages": [{"role": "user", "content": "Is tea hot?"}]}


def bearer(**claims) -> dict[str, str]:
    return {"authorization": f"Bearer {token(**claims)}"}


async def test_requests_over_the_edges_limit_get_kongs_429(tmp_path):
    async with running(tmp_path, edge_file=EDGE) as gateway:
        await early_in_the_minute()
        for left in (2, 1, 0):
            response = await gateway.client.get("/v1/models")
            assert response.status_code == 200
            assert response.headers["ratelimit-limit"] == "3"
            assert response.headers["ratelimit-remaining"] == str(left)
            assert response.headers["x-ratelimit-limit-minute"] == "3"
            assert response.headers["x-ratelimit-remaining-hour"] == str(97 + left)
        # Without a valid token nothing is counted and nothing is told.
        refused = await gateway.client.get("/v1/models", headers={"authorization": "Bearer x"})
        assert refused.status_code == 401
        assert "ratelimit-limit" not in refused.headers
        # One consumer, whatever its tenant.
        response = await gateway.client.get("/v1/models", headers=bearer(tenant="other"))
        assert response.status_code == 429
        assert response.json() == {
            "error": {
                "message": "API rate limit exceeded",
                "type": "rate_limit_error",
                "param": None,
                "code": "rate_limit_exceeded",
            }
        }
        assert response.headers["ratelimit-remaining"] == "0"
        assert response.headers["retry-after"] == response.headers["ratelimit-reset"]
        assert 0 < int(response.headers["retry-after-ms"]) <= 60_000
        assert response.headers["x-request-id"]
        health = await gateway.client.get("/health/live")
        assert health.status_code == 200
        assert "ratelimit-limit" not in health.headers


async def test_behind_kong_the_edges_limits_are_kongs(tmp_path):
    settings: dict[str, Any] = {"edge": "kong", "tenant_requests_per_hour": 5}
    async with running(tmp_path, edge_file=EDGE, **settings) as gateway:
        for _ in range(5):
            response = await gateway.client.get("/v1/models")
            assert response.status_code == 200
            assert "ratelimit-limit" not in response.headers
        assert (await gateway.client.get("/v1/models")).status_code == 429
        other = await gateway.client.get("/v1/models", headers=bearer(tenant="other"))
        assert other.status_code == 200


async def test_ragservice_is_limited_by_its_own_route(tmp_path):
    async with running(tmp_path, edge_file=EDGE) as gateway:
        await early_in_the_minute()
        metadata = (("authorization", f"Bearer {token()}"),)
        for _ in range(2):
            await gateway.rag.ListModels(gateway_pb2.ListModelsRequest(), metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await gateway.rag.ListModels(gateway_pb2.ListModelsRequest(), metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_tokens_are_reserved_bound_and_settled(tmp_path):
    async with running(tmp_path, tenant_tokens_per_day=500, default_output_tokens=300) as gateway:
        response = await gateway.post("/v1/chat/completions", CHAT)
        assert response.status_code == 200
        # The engine was held to the reservation, and 10 tokens were used after all.
        assert gateway.mesh.infer.requests[-1].sampling.max_tokens == 300
        assert response.headers["x-ratelimit-limit-tokens"] == "500"
        assert response.headers["x-ratelimit-remaining-tokens"] == "490"
        response = await gateway.post("/v1/chat/completions", {**CHAT, "max_tokens": 460})
        assert gateway.mesh.infer.requests[-1].sampling.max_tokens == 460
        assert response.headers["x-ratelimit-remaining-tokens"] == "480"
        gateway.mesh.infer.script = [started(), delta("a"), finish(), usage(15, 440)]
        assert (await gateway.post("/v1/chat/completions", CHAT)).status_code == 200
        refused = await gateway.post("/v1/chat/completions", {**CHAT, "max_tokens": 50})
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "token_limit_exceeded"
        assert refused.headers["x-ratelimit-remaining-tokens"] == "25"
        assert int(refused.headers["retry-after"]) >= 1
        never = await gateway.post("/v1/chat/completions", {**CHAT, "max_tokens": 501})
        assert never.status_code == 400
        assert never.json()["error"]["code"] == "token_limit_too_small"
        assert never.json()["error"]["param"] == "max_tokens"


async def test_the_tokens_of_a_stream_are_refused_before_it_begins(tmp_path):
    async with running(tmp_path, tenant_tokens_per_day=400, default_output_tokens=300) as gateway:
        gateway.mesh.infer.script = [started(), delta("a"), finish(), usage(100, 290)]
        streamed = await gateway.post("/v1/chat/completions", {**CHAT, "stream": True})
        assert streamed.status_code == 200
        # Known when the headers went out: what was reserved.
        assert int(streamed.headers["x-ratelimit-remaining-tokens"]) < 100
        refused = await gateway.post(
            "/v1/chat/completions", {**CHAT, "stream": True, "max_tokens": 20}
        )
        assert refused.status_code == 429
        assert refused.headers["content-type"] == "application/json"
        assert refused.headers["x-ratelimit-remaining-tokens"] == "10"


async def test_embeddings_count_their_tokens(tmp_path):
    async with running(tmp_path, tenant_tokens_per_day=100) as gateway:
        response = await gateway.post("/v1/embed", {"text": "tea"})
        assert response.status_code == 200
        used = response.json()["usage"]["total_tokens"]
        assert response.headers["x-ratelimit-remaining-tokens"] == str(100 - used)
        refused = await gateway.post("/v1/embed", {"text": "tea " * 200})
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "token_limit_too_small"


async def test_a_client_that_leaves_a_stream_frees_its_place_and_its_tokens(tmp_path):
    settings: dict[str, Any] = {"tenant_streams": 1, "tenant_tokens_per_day": 2000}
    async with running(tmp_path, **settings) as gateway:
        infer = gateway.mesh.infer
        infer.script = [started(), delta("Tea is hot."), asyncio.Event()]
        body = {**CHAT, "stream": True, "max_tokens": 1000}
        async with gateway.client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200
            await asyncio.wait_for(infer.running.wait(), 5)
            second = await gateway.post("/v1/chat/completions", body)
            assert second.status_code == 429
            assert second.json()["error"]["code"] == "stream_limit_exceeded"
        await asyncio.wait_for(infer.cancelled.wait(), 5)
        infer.script = [started(), delta("Tea."), finish(), usage()]
        async with asyncio.timeout(5):
            while True:
                third = await gateway.post("/v1/chat/completions", body)
                if third.status_code == 200:
                    break
                await asyncio.sleep(0.02)
        # The first one settled with its prompt and the little it had sent, not with its 1000.
        plain = await gateway.post("/v1/chat/completions", CHAT)
        assert 1900 < int(plain.headers["x-ratelimit-remaining-tokens"]) < 1990


async def test_a_chat_over_ragservice_counts_too(tmp_path):
    async with running(tmp_path, tenant_tokens_per_day=60) as gateway:
        request = gateway_pb2.ChatRequest()
        request.generate.messages.add(
            role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="Is tea hot?")]
        )
        request.generate.sampling.max_tokens = 35
        metadata = (("authorization", f"Bearer {token()}"),)
        gateway.mesh.infer.script = [started(), delta("a"), finish(), usage(10, 30)]
        async for _ in gateway.rag.Chat(request, metadata=metadata):
            pass
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in gateway.rag.Chat(request, metadata=metadata):
                pass
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_web_pages_may_read_the_numbers(tmp_path):
    source = (Path(__file__).parents[3] / "gateway" / "kong" / "kong.yml").read_text()
    async with running(tmp_path, edge_file=source) as gateway:
        response = await gateway.client.get("/v1/models", headers={"origin": "https://app.example"})
        exposed = response.headers["access-control-expose-headers"].split(",")
        assert {"ratelimit-remaining", "x-ratelimit-remaining-tokens"} <= set(exposed)
