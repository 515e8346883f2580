"""Rerankers behind HTTP, against servers on loopback that speak as theirs do."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.retrieve.adapters import RERANKERS
from services.retrieve.adapters.remote_rerankers import (
    COHERE,
    MEANINGS,
    RemoteReranker,
    address_of,
)
from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import RagmeshError
from services.runtime.registry import resolve
from tests.unit.retrieve.rerank_server import MODEL, ROUTES, overlap, rerank_server

# ruff: noqa: SIM117 - what is refused inside what runs reads better than both on one line
KINDS = sorted(ROUTES)
TEXTS = ["The sea is blue.", "Foxes live in dens.", "A fox."]


def made(kind, url, **settings):
    given = RetrieveSettings(
        data=Path("unused"),
        reranker_backend=kind,
        reranker_url=url,
        reranker_model="" if kind == "tei" else MODEL,
        **settings,
    )
    return resolve(RERANKERS, kind, "RERANKER_BACKEND")(given)


@asynccontextmanager
async def running(kind="cohere", *, reranker=None, **state):
    async with rerank_server(kind=kind, **state) as server:
        reranker = reranker or made(kind, server.url, reranker_api_key=server.key)
        await reranker.start()
        try:
            yield server, reranker
        finally:
            await reranker.aclose()


@asynccontextmanager
async def refused(reason, code=None):
    with pytest.raises(RagmeshError) as caught:
        yield caught
    assert caught.value.reason == reason
    if code:
        assert caught.value.code == code


@pytest.mark.parametrize("kind", KINDS)
async def test_scores_in_the_order_of_the_texts(kind):
    async with running(kind) as (server, reranker):
        scores = await reranker.rerank("where do foxes live", TEXTS)
    expected = [overlap("where do foxes live", text) for text in TEXTS]
    assert scores.values == pytest.approx(expected)
    assert len(server.requests) == 1
    assert scores.tokens == (10 if kind in ("cohere", "vllm") else 0)


@pytest.mark.parametrize(("kind", "parts"), [("tei", 19), ("nim", 2), ("cohere", 1)])
async def test_many_texts_go_in_parts(kind, parts):
    texts = [f"fox number {n}" if n % 7 else "the sea" for n in range(600)]
    async with running(kind) as (server, reranker):
        scores = await reranker.rerank("fox", texts)
    assert len(server.requests) == parts
    assert scores.values == pytest.approx([overlap("fox", text) for text in texts])


@pytest.mark.parametrize("kind", KINDS)
async def test_the_key_is_sent_and_a_wrong_one_is_named(kind):
    async with running(kind, key="secret") as (server, reranker):
        assert (await reranker.rerank("fox", ["fox"])).values
        server.key = "another"
        async with refused("RERANKER_AUTHENTICATION_FAILED", "FAILED_PRECONDITION"):
            await reranker.rerank("fox", ["fox"])


async def test_a_nim_takes_the_key_that_all_nims_have():
    async with rerank_server(kind="nim", key="secret") as server:
        reranker = made("nim", server.url, nim_api_key="secret")
        async with running("nim", reranker=reranker):
            assert (await reranker.rerank("fox", ["fox"])).values


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        *(
            (status, "RERANKER_MISCONFIGURED", "FAILED_PRECONDITION")
            for status in (301, 302, 307, 308)
        ),
        (400, "RERANKER_REFUSED", "INVALID_ARGUMENT"),
        (401, "RERANKER_AUTHENTICATION_FAILED", "FAILED_PRECONDITION"),
        (402, "RERANKER_RATE_LIMITED", "RESOURCE_EXHAUSTED"),
        (403, "RERANKER_AUTHENTICATION_FAILED", "FAILED_PRECONDITION"),
        (404, "RERANKER_MISCONFIGURED", "FAILED_PRECONDITION"),
        (405, "RERANKER_MISCONFIGURED", "FAILED_PRECONDITION"),
        (408, "RERANKER_TIMEOUT", "DEADLINE_EXCEEDED"),
        (413, "RERANKER_REFUSED", "INVALID_ARGUMENT"),
        (415, "RERANKER_MISCONFIGURED", "FAILED_PRECONDITION"),
        (418, "RERANKER_REFUSED", "INVALID_ARGUMENT"),
        (422, "RERANKER_REFUSED", "INVALID_ARGUMENT"),
        (424, "RERANKER_UNAVAILABLE", "UNAVAILABLE"),
        (429, "RERANKER_RATE_LIMITED", "RESOURCE_EXHAUSTED"),
        (498, "RERANKER_AUTHENTICATION_FAILED", "FAILED_PRECONDITION"),
        (500, "RERANKER_UNAVAILABLE", "UNAVAILABLE"),
        (501, "RERANKER_MISCONFIGURED", "FAILED_PRECONDITION"),
        (502, "RERANKER_UNAVAILABLE", "UNAVAILABLE"),
        (503, "RERANKER_OVERLOADED", "UNAVAILABLE"),
        (504, "RERANKER_TIMEOUT", "DEADLINE_EXCEEDED"),
        (520, "RERANKER_UNAVAILABLE", "UNAVAILABLE"),
        (529, "RERANKER_OVERLOADED", "UNAVAILABLE"),
        (202, "RERANKER_BAD_ANSWER", "INTERNAL"),
    ],
)
async def test_statuses(status, reason, code):
    secret = "the server's own words"
    async with running(mode="error", status=status, body=json.dumps({"message": secret})) as (
        _, reranker,
    ):  # fmt: skip
        async with refused(reason, code) as caught:
            await reranker.rerank("fox", ["fox"])
    assert secret not in str(caught.value)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_text_that_is_too_long(status):
    body = '{"error":"Input validation error: `inputs` must have less than 512 tokens. Given: 600"}'
    async with running(mode="error", status=status, body=body) as (_, reranker):
        async with refused("RERANKER_CONTEXT_LENGTH_EXCEEDED", "INVALID_ARGUMENT") as caught:
            await reranker.rerank("fox", ["fox"])
    assert "512 tokens; this is 600 long" in caught.value.message


def test_every_status_of_the_table_is_tested():
    (mark,) = test_statuses.pytestmark
    assert MEANINGS.statuses.keys() <= {status for status, *_ in mark.args[1]}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, None),
        ({}, None),
    ],
)
async def test_when_to_come_back(headers, seconds):
    async with running(mode="error", status=429, headers=headers) as (_, reranker):
        async with refused("RERANKER_RATE_LIMITED") as caught:
            await reranker.rerank("fox", ["fox"])
    assert caught.value.retry_after == seconds


def one(index=0, score: object = 0.5):
    return {"index": index, "relevance_score": score}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        "[" * 100_000,
        "null",
        "[]",
        '"text"',
        "{}",
        '{"results": null}',
        '{"results": 5}',
        '{"results": [7]}',
        '{"results": [{}]}',
        *(
            json.dumps({"results": results})
            for results in (
                [],
                [one()],
                [one(), one()],
                [one(), one(2)],
                [one(), one(-1)],
                [one(), one(True)],
                [one(), one(1.0)],
                [one(), one(1, None)],
                [one(), one(1, "high")],
                [one(), one(1, float("nan"))],
                [one(), one(1, float("inf"))],
                [one(), one(1), one(1)],
            )
        ),
        json.dumps({"results": [one(), one(1)], "usage": 5}),
    ],
)
async def test_garbage(body):
    async with running(mode="garbage", body=body) as (_, reranker):
        async with refused("RERANKER_BAD_ANSWER", "INTERNAL"):
            await reranker.rerank("fox", ["fox", "sea"])


async def test_an_answer_that_is_cut():
    async with running(mode="cut") as (_, reranker):
        async with refused("RERANKER_UNAVAILABLE", "UNAVAILABLE"):
            await reranker.rerank("fox", ["fox"])


async def test_a_server_that_says_nothing():
    async with rerank_server(mode="silent") as server:
        address = f"{server.url}/v1/rerank"
        reranker = RemoteReranker(address, COHERE, model=MODEL, timeout=0.05)
        async with running(reranker=reranker), refused("RERANKER_TIMEOUT", "DEADLINE_EXCEEDED"):
            await reranker.rerank("fox", ["fox"])
        await server.left.wait()


async def test_a_server_that_is_away_is_left_alone_for_a_while():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        reranker = made("cohere", f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        async with running(reranker=reranker):
            for _ in range(2):
                async with refused("RERANKER_UNAVAILABLE", "UNAVAILABLE") as caught:
                    await reranker.rerank("fox", ["fox"])
                assert 0 < caught.value.retry_after <= 2


async def test_leaving_ends_the_request():
    async with running(mode="silent") as (server, reranker):
        waiting = asyncio.create_task(reranker.rerank("fox", ["fox"]))
        await server.asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await server.left.wait()


async def test_one_failing_part_ends_the_others():
    async with running("tei", mode="error", status=503) as (server, reranker):
        async with refused("RERANKER_OVERLOADED"):
            await reranker.rerank("fox", ["fox"] * 320)
        assert len(server.requests) < 10


@pytest.mark.parametrize(
    ("url", "version", "address"),
    [
        ("http://host:8000", "/v1", "http://host:8000/v1/rerank"),
        ("http://host:8000/", "/v1", "http://host:8000/v1/rerank"),
        ("http://host/v2", "/v1", "http://host/v2/rerank"),
        ("http://host/v1/rerank", "/v1", "http://host/v1/rerank"),
        ("https://host/v1/retrieval/nvidia/x/reranking", "/v1",
         "https://host/v1/retrieval/nvidia/x/reranking"),
        ("http://host:80", "", "http://host:80/rerank"),
    ],
)  # fmt: skip
def test_addresses(url, version, address):
    assert address_of(url, "rerank", version) == address


@pytest.mark.parametrize(
    ("kind", "url", "model", "named"),
    [
        ("cohere", "", "", "RAGMESH_RERANKER_MODEL"),
        ("vllm", "", "m", "RAGMESH_RERANKER_URL"),
        ("nim", "http://host", "", "RAGMESH_RERANKER_MODEL"),
        ("tei", "", "", "RAGMESH_RERANKER_URL"),
    ],
)
def test_what_is_missing_is_named(kind, url, model, named):
    settings = RetrieveSettings(
        data=Path("unused"), reranker_backend=kind, reranker_url=url, reranker_model=model
    )
    with pytest.raises(RagmeshError, match=named):
        resolve(RERANKERS, kind, "RERANKER_BACKEND")(settings)
