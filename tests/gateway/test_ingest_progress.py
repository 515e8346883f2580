"""Documents on their way in, told as events."""

import asyncio
import json
from itertools import pairwise

import httpx_sse
import pytest

from tests.gateway.conftest import token

PATH = "/v1/collections/docs/documents"
EVENTS = {"accept": "text/event-stream"}


def entries(*texts):
    return {"documents": [{"id": f"d{n}", "text": text} for n, text in enumerate(texts)]}


async def events_of(gateway, **request):
    async with httpx_sse.aconnect_sse(gateway.client, "POST", PATH, **request) as source:
        assert source.response.status_code == 200
        return [(one.event, json.loads(one.data)) async for one in source.aiter_sse()]


async def test_progress_then_the_answer(gateway):
    await gateway.collection()
    await gateway.post(PATH, entries("Old"))
    assert not gateway.mesh.retrieve.headers[-1].progress, "nobody asked for it"
    *told, (name, done) = await events_of(gateway, json=entries("Old", "One\n\nTwo", "Three"))
    assert {name for name, _ in told} == {"progress"}
    assert gateway.mesh.retrieve.headers[-1].progress
    assert told[0][1]["total_documents"] == 3
    for before, after in pairwise(told):
        assert all(before[1][key] <= after[1][key] for key in before[1]), "nothing goes back"
    assert all(one["chunks"] <= one["total_chunks"] for _, one in told)
    assert (name, done) == (
        "done",
        {
            "documents": [
                {"id": "d0", "chunks": 1, "status": "unchanged"},
                {"id": "d1", "chunks": 2, "status": "indexed"},
                {"id": "d2", "chunks": 1, "status": "indexed"},
            ]
        },
    )


async def test_files_are_read_while_the_stream_is_open(gateway):
    await gateway.collection()
    files = [("file", ("a.txt", b"T" * 2_000_000, "text/plain")), ("file", ("b.txt", b"U"))]
    *told, (name, done) = await events_of(gateway, files=files, headers=EVENTS)
    assert told
    assert name == "done"
    assert [one["id"] for one in done["documents"]] == ["a.txt", "b.txt"]


async def test_how_far_it_is_stands_before_the_end(gateway):
    await gateway.collection()
    gateway.mesh.retrieve.index_gate = gate = asyncio.Event()
    body = entries("One\n\nTwo\n\nThree")
    async with (
        asyncio.timeout(10),
        httpx_sse.aconnect_sse(gateway.client, "POST", PATH, json=body) as source,
    ):
        said = source.aiter_sse()
        far: dict[str, int] = {}
        while far.get("chunks") != 3:
            one = await anext(said)
            assert one.event == "progress"
            far = json.loads(one.data)
        assert far == {"documents": 1, "total_documents": 1, "chunks": 3, "total_chunks": 3}
        gate.set()
        assert [one.event async for one in said][-1] == "done"


async def test_one_who_leaves_cancels_it(gateway):
    await gateway.collection()
    gateway.mesh.retrieve.index_gate = asyncio.Event()
    async with asyncio.timeout(10):
        async with httpx_sse.aconnect_sse(
            gateway.client, "POST", PATH, json=entries("One")
        ) as source:
            await anext(source.aiter_sse())
            await gateway.mesh.retrieve.running.wait()
            assert not gateway.mesh.retrieve.cancelled.is_set()
        await gateway.mesh.retrieve.cancelled.wait()
    assert (await gateway.client.get(PATH)).json()["documents"] == []


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "application/json, text/event-stream"]
)
async def test_others_are_answered_as_ever(gateway, accept):
    await gateway.collection()
    response = await gateway.client.post(PATH, json=entries("One"), headers={"accept": accept})
    assert response.status_code == 201
    assert response.json()["documents"][0]["status"] == "indexed"


async def test_what_fails_before_the_first_event_has_its_status(gateway):
    response = await gateway.client.post(PATH, json=entries("One"), headers=EVENTS)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "collection_not_found")
    await gateway.collection()
    response = await gateway.client.post(PATH, json=entries("LOCKED"), headers=EVENTS)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "documents[0]"
    reader = {**EVENTS, "authorization": f"Bearer {token(scope='documents:read')}"}
    response = await gateway.client.post(PATH, json=entries("One"), headers=reader)
    assert response.status_code == 403


async def test_what_fails_later_is_an_event(gateway):
    await gateway.collection()
    gateway.mesh.preprocess.after_first = asyncio.Event()
    said = []
    async with (
        asyncio.timeout(10),
        httpx_sse.aconnect_sse(
            gateway.client, "POST", PATH, json=entries("One", "LOCKED")
        ) as source,
    ):
        async for one in source.aiter_sse():
            said.append((one.event, json.loads(one.data)))
            gateway.mesh.preprocess.after_first.set()
    assert said[0][0] == "progress"
    name, failure = said[-1]
    assert name == "error"
    assert failure["error"]["code"] == "encrypted_document"
    assert failure["error"]["param"] == "documents[1]"
    assert (await gateway.client.get(PATH)).json()["documents"] == [], "all or none"
