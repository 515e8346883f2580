"""Tokens as clients meet them: rotation under load, revocation, models a token may use."""

import asyncio
import time

import grpc
import httpx
import pytest

from gateway.keys import Keyring
from gateway.revocations import Revocations
from gateway.store.database import open_database
from gateway.store.revocations import RevocationStore
from ragmesh.gateway.v1 import gateway_pb2
from ragmesh.infer.v1 import infer_pb2
from services.runtime.status import error_from_rpc
from tests.gateway.conftest import running, token

CHAT = {"messages": [{"role": "user", "content": "Is tea hot?"}]}
SCOPES = ["models:read"]


async def test_rotating_a_key_under_load_fails_no_request(tmp_path):
    keyring = Keyring(tmp_path)
    keyring.configure("rate-limiting", {"minute": 10**6, "hour": 10**7})
    first = keyring.create("acme", tenants=["acme"], scopes=SCOPES)
    refused: list[str] = []
    calls = 0
    async with running(tmp_path, edge_file=keyring.rendered.read_text()) as gateway:
        done = asyncio.Event()

        async def load(client: httpx.AsyncClient) -> None:
            nonlocal calls
            while not done.is_set():
                # Each call with a token of whatever key signs at that moment.
                issued = keyring.issue(consumer="acme", subject="acme", scopes=SCOPES)
                headers = {"authorization": f"Bearer {issued}"}
                response = await client.get("/v1/models", headers=headers)
                calls += 1
                if response.status_code != 200:
                    refused.append(response.text)

        async with httpx.AsyncClient(base_url=gateway.base_url, timeout=20) as client:
            old = keyring.issue(consumer="acme", subject="acme", scopes=SCOPES)
            clients = [asyncio.create_task(load(client)) for _ in range(4)]
            for algorithm in ("RS256", "ES256", "ES256"):
                await asyncio.sleep(0.4)
                await asyncio.to_thread(keyring.rotate, "acme", algorithm=algorithm)
            standby = await asyncio.to_thread(keyring.rotate, "acme", standby=True)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(keyring.promote, standby)
            headers = {"authorization": f"Bearer {old}"}
            assert (await client.get("/v1/models", headers=headers)).status_code == 200
            await asyncio.to_thread(keyring.revoke, first)
            await asyncio.sleep(0.9)
            assert (await client.get("/v1/models", headers=headers)).status_code == 401
            done.set()
            await asyncio.gather(*clients)
    assert refused == []
    assert calls > 50


async def test_a_revoked_token_is_refused_by_both_faces(tmp_path):
    async with running(tmp_path) as gateway:
        engine = await open_database(gateway.state.settings.store_url)
        store = RevocationStore(engine)
        revocations = Revocations(store)
        gateway.state.authenticator._revocations = revocations
        await revocations.start()
        given = token(jti="stolen")
        bearer = {"authorization": f"Bearer {given}"}
        assert (await gateway.client.get("/v1/models", headers=bearer)).status_code == 200
        now = time.time()
        await store.add("embedded", "stolen", expires_at=now + 600, now=now)
        await asyncio.sleep(0.9)
        response = await gateway.client.get("/v1/models", headers=bearer)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "token_revoked"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.rag.ListModels(
                gateway_pb2.ListModelsRequest(), metadata=tuple(bearer.items())
            )
        assert error_from_rpc(caught.value).reason == "TOKEN_REVOKED"
        await revocations.aclose()
        await engine.dispose()


@pytest.mark.parametrize("models", [["fake/echo"], "fake/echo other"])
async def test_a_token_uses_the_models_it_names_and_sees_no_other(gateway, models):
    await gateway.collection()
    headers = {"authorization": f"Bearer {token(models=models)}"}
    client = gateway.client
    listed = (await client.get("/v1/models", headers=headers)).json()["data"]
    assert [model["id"] for model in listed] == ["fake/echo"]
    assert (await client.get("/v1/models/fake/echo", headers=headers)).status_code == 200
    assert (await client.get("/v1/models/default", headers=headers)).status_code == 404
    allowed = await client.post(
        "/v1/chat/completions", json=CHAT | {"model": "fake/echo"}, headers=headers
    )
    assert allowed.status_code == 200
    for path, body in (
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", CHAT | {"model": "default", "stream": True}),
        ("/v1/chat/completions", CHAT | {"retrieval": {"collection": "docs"}}),
        ("/v1/completions", {"prompt": "x", "model": "default"}),
        ("/v1/query", {"query": "Is tea hot?", "collection": "docs"}),
        ("/v1/query", {"query": "Is tea hot?", "collection": "docs", "stream": True}),
        ("/v1/generate", {"text": "x"}),
        ("/v1/summarize", {"text": "x"}),
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/rerank", {"query": "x", "documents": ["y"]}),
        ("/v1/embed", {"text": "x"}),
    ):
        response = await client.post(path, json=body, headers=headers)
        assert response.status_code == 403, path
        assert response.json()["error"]["code"] == "model_not_allowed"
        assert response.json()["error"]["param"] == "model"
    assert gateway.mesh.retrieve.searches == [], "refused before anything is asked"
    assert gateway.mesh.retrieve.embeds == []


async def test_models_bind_over_grpc_too(gateway):
    metadata = (("authorization", f"Bearer {token(models=['fake/echo'])}"),)
    request = gateway_pb2.SummarizeRequest(text="x")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.rag.Summarize(request, metadata=metadata)
    assert error_from_rpc(caught.value).reason == "MODEL_NOT_ALLOWED"
    chat = gateway_pb2.ChatRequest(generate=infer_pb2.GenerateRequest(model="default"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in gateway.rag.Chat(chat, metadata=metadata):
            pass
    assert error_from_rpc(caught.value).reason == "MODEL_NOT_ALLOWED"
