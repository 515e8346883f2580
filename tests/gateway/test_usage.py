"""Usage by day and model, over both faces."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest

from gateway.routes.usage import days
from gateway.store.usage import UsageCounts, UsageKey
from gateway.usage import UsageMeter
from ragmesh.gateway.v1 import gateway_pb2
from ragmesh.infer.v1 import infer_pb2
from ragmesh.retrieve.v1 import retrieve_pb2
from services.runtime.errors import InvalidArgument, Unavailable
from tests.gateway.conftest import token
from tests.gateway.mesh import delta, started

CHAT = {"messages": [{"role": "user", "content": "Is tea hot?"}]}
QUERY = {"query": "Is tea hot?", "collection": "docs"}


def today() -> str:
    return datetime.now(UTC).date().isoformat()


async def usage(gateway, **params):
    response = await gateway.client.get("/v1/usage", params=params)
    assert response.status_code == 200, response.text
    return response.json()


async def rows(gateway) -> dict[str, dict]:
    return {row["model"]: row for row in (await usage(gateway))["usage"]}


async def test_every_way_to_a_model_is_counted(gateway):
    await gateway.collection()
    await gateway.post("/v1/query", QUERY)
    await gateway.post("/v1/query", {**QUERY, "stream": True})
    await gateway.post("/v1/chat/completions", CHAT)
    await gateway.post("/v1/chat/completions", {**CHAT, "stream": True})
    await gateway.post("/v1/embeddings", {"input": "tea"})
    metadata = [("authorization", f"Bearer {token()}")]
    await gateway.rag.Summarize(gateway_pb2.SummarizeRequest(text="Tea."), metadata=metadata)
    embed = retrieve_pb2.EmbedRequest(inputs=[retrieve_pb2.EmbedInput(text="tea")])
    await gateway.rag.Embed(gateway_pb2.EmbedRequest(embed=embed), metadata=metadata)
    found = await usage(gateway)
    assert found["usage"] == [
        {
            "day": today(), "model": "fake-encoder", "requests": 2, "prompt_tokens": 0,
            "completion_tokens": 0, "embedding_tokens": 8, "estimated": 0, "total_tokens": 8,
        },
        {
            "day": today(), "model": "fake/echo", "requests": 5, "prompt_tokens": 35,
            "completion_tokens": 15, "embedding_tokens": 0, "estimated": 0, "total_tokens": 50,
        },
    ]  # fmt: skip
    assert found["total"]["total_tokens"] == 58
    assert found["to"] == today()
    assert len((await usage(gateway, model="fake/echo"))["usage"]) == 1
    assert (await usage(gateway, to="2020-01-01"))["usage"] == []


async def test_it_is_the_tenants_own_and_asks_for_no_scope(gateway):
    await gateway.post("/v1/chat/completions", CHAT)
    bare = {"authorization": f"Bearer {token(scope='', subject='bob')}"}
    mine = (await gateway.client.get("/v1/usage", headers=bare)).json()
    assert mine["total"]["requests"] == 1
    other = {"authorization": f"Bearer {token(tenant='other')}"}
    theirs = (await gateway.client.get("/v1/usage", headers=other)).json()
    assert theirs["usage"] == []
    assert (await gateway.client.get("/v1/usage", headers={"authorization": ""})).status_code == 401


async def test_a_rewrite_counts_its_tokens_and_no_request(gateway):
    await gateway.collection()
    for query in ("Is tea hot?", "and ice?"):
        await gateway.post("/v1/query", {**QUERY, "query": query, "session_id": "s"})
    assert [r.task for r in gateway.mesh.infer.requests].count(infer_pb2.TASK_REWRITE) == 1
    row = (await rows(gateway))["fake/echo"]
    assert (row["requests"], row["prompt_tokens"]) == (2, 21)


async def test_a_client_that_leaves_counts_with_what_is_known(gateway):
    gateway.mesh.infer.script = [started(), delta("Tea is hot. " * 10), asyncio.Event()]
    request = gateway.client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True})
    async with request as response:
        await anext(response.aiter_lines())
        await gateway.mesh.infer.running.wait()
    await asyncio.wait_for(gateway.mesh.infer.cancelled.wait(), 5)
    async with asyncio.timeout(5):
        while not (found := await rows(gateway)):  # noqa: ASYNC110 - the store has no event
            await asyncio.sleep(0.02)
    row = found["fake/echo"]
    assert (row["requests"], row["estimated"]) == (1, 1)
    assert row["prompt_tokens"] > 0
    assert row["completion_tokens"] > 10


async def test_what_never_began_counts_nothing(gateway):
    gateway.mesh.infer.script = [Unavailable("ENGINE_UNAVAILABLE", "No engine.")]
    assert (await gateway.post("/v1/chat/completions", CHAT)).status_code == 503
    assert await rows(gateway) == {}


async def test_counts_add_up_over_replicas_and_in_the_background(gateway):
    store = gateway.state.usage_store
    tenant = "t" * 64
    replicas = [UsageMeter(store, interval=0.05) for _ in range(3)]
    for replica in replicas:
        replica.start()
    for number in range(300):
        counts = UsageCounts(1, prompt_tokens=2)
        replicas[number % 3].count(tenant, f"model-{number % 2}", counts)
        await asyncio.sleep(0.001)
    for replica in replicas:
        await replica.aclose()
    day = datetime.now(UTC).date()
    found = await store.read(tenant, day - timedelta(1), day)
    assert sum(counts.requests for _, counts in found) == 300
    assert sum(counts.prompt_tokens for _, counts in found) == 600
    assert {key.model for key, _ in found} == {"model-0", "model-1"}


class Away:
    """A store that does not answer, for a while."""

    def __init__(self) -> None:
        self.away = True
        self.added: dict[UsageKey, UsageCounts] = {}

    async def add(self, counts) -> None:
        if self.away:
            raise Unavailable("STORE_UNAVAILABLE", "The SQL store does not answer.")
        self.added |= counts


async def test_a_store_that_is_away_loses_nothing():
    store = Away()
    meter = UsageMeter(store, today=lambda: date(2026, 11, 21))  # type: ignore[arg-type]
    meter.count("t", "m", UsageCounts(1))
    with pytest.raises(Unavailable):
        await meter.flush()
    meter.count("t", "m", UsageCounts(1, 5))
    store.away = False
    await meter.flush()
    key = UsageKey("t", date(2026, 11, 21), "m")
    assert store.added == {key: UsageCounts(2, 5)}


def test_days():
    now = date(2026, 11, 21)
    assert days(None, None, now) == (date(2026, 10, 23), now)
    assert days("2026-11-01", None, now) == (date(2026, 11, 1), now)
    assert days("2025-11-21", "2026-11-21")[0] == date(2025, 11, 21)
    for first, last in (
        ("2025-11-20", "2026-11-21"),
        ("2026-11-22", "2026-11-21"),
        ("20261121", None),
        ("yesterday", None),
        ("2026-02-30", None),
        ("２０２６-11-21", None),
    ):
        with pytest.raises(InvalidArgument):
            days(first, last)
    assert days(None, "0001-01-02") == (date(1, 1, 1), date(1, 1, 2))


async def test_a_wrong_date_is_told(gateway):
    response = await gateway.client.get("/v1/usage", params={"from": "x"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "from"
