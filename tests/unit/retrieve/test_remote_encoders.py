"""Encoders behind HTTP, against servers on loopback that fail as theirs do."""

import asyncio
import base64
import json
import logging
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.retrieve.adapters import ENCODERS
from services.retrieve.adapters.openai import MEANINGS
from services.retrieve.ports import EncoderInput
from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import RagmeshError
from services.runtime.registry import resolve
from tests.unit.retrieve.embedding_server import MODEL, embedding_server
from tests.unit.retrieve.fakes import DIMENSIONS

# ruff: noqa: SIM117 - what is refused inside what runs reads better than both on one line
KINDS = ["nim", "openai"]
ONE = [EncoderInput("fox", 3)]


def made(kind, url, **settings):
    given = RetrieveSettings(
        data=Path("unused"), embedding_backend=kind, embedding_url=f"{url}/v1",
        embedding_model=MODEL, **settings,
    )  # fmt: skip
    return resolve(ENCODERS, kind, "EMBEDDING_BACKEND").from_settings(given)


@asynccontextmanager
async def running(kind="openai", *, settings=None, **later):
    """An encoder that started well, at a server that behaves as told afterwards."""
    async with embedding_server(kind=kind) as server:
        encoder = made(kind, server.url, **(settings or {}))
        await encoder.start()
        for name, value in later.items():
            setattr(server, name, value)
        try:
            yield server, encoder
        finally:
            await encoder.aclose()


@asynccontextmanager
async def refused(reason, code=None):
    with pytest.raises(RagmeshError) as caught:
        yield caught
    assert caught.value.reason == reason
    if code:
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        *(
            (status, "ENCODER_MISCONFIGURED", "FAILED_PRECONDITION")
            for status in (301, 302, 307, 308, 404, 405, 415, 501)
        ),
        *((status, "INPUT_REFUSED", "INVALID_ARGUMENT") for status in (400, 413, 418, 422)),
        *((s, "ENCODER_AUTHENTICATION_FAILED", "FAILED_PRECONDITION") for s in (401, 403)),
        *((status, "ENCODER_RATE_LIMITED", "RESOURCE_EXHAUSTED") for status in (402, 429)),
        *((status, "ENCODER_TIMEOUT", "DEADLINE_EXCEEDED") for status in (408, 504)),
        *((status, "ENCODER_UNAVAILABLE", "UNAVAILABLE") for status in (424, 500, 502, 520)),
        *((status, "ENCODER_OVERLOADED", "UNAVAILABLE") for status in (503, 529)),
        (202, "ENCODER_BAD_ANSWER", "INTERNAL"),
    ],
)
async def test_statuses(status, reason, code):
    secret = "the server's own words"
    body = json.dumps({"error": {"message": secret}})
    async with running(mode="error", status=status, body=body) as (_, encoder):
        async with refused(reason, code) as caught:
            await encoder.encode(ONE, query=True)
    assert secret not in str(caught.value)


def test_every_status_of_the_table_is_tested():
    (mark,) = test_statuses.pytestmark
    assert MEANINGS.statuses.keys() <= {status for status, *_ in mark.args[1]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("status", "said", "told"),
    [
        (
            400,
            "This model's maximum context length is 8192 tokens, however you requested 9001 "
            "tokens (9001 in your prompt; 0 for the completion). Please reduce your prompt.",
            "It reads 8192 tokens; this is 9001 long.",
        ),
        (
            400,
            "This model's maximum context length is 512 tokens. However, you requested 600 tokens "
            "in the input for embedding generation. Please reduce the length of the input.",
            "It reads 512 tokens; this is 600 long.",
        ),
        (
            413,
            "Input validation error: `inputs` must have less than 512 tokens. Given: 601",
            "It reads 512 tokens; this is 601 long.",
        ),
        (
            400,
            "Input length 602 exceeds maximum allowed token size 512",
            "It reads 512 tokens; this is 602 long.",
        ),
        (
            400,
            "input (603 tokens) is too large to process. increase the physical batch size "
            "(current batch size: 512)",
            "It reads 512 tokens; this is 603 long.",
        ),
        (422, "The maximum context length is 77.", "It reads 77 tokens."),
    ],
)
async def test_an_input_that_is_too_long_is_told_with_the_numbers(kind, status, said, told):
    body = json.dumps({"error": {"message": said, "secret": "words"}})
    async with running(kind, mode="error", status=status, body=body) as (_, encoder):
        async with refused("CONTEXT_LENGTH_EXCEEDED", "INVALID_ARGUMENT") as caught:
            await encoder.encode(ONE, query=False)
    assert caught.value.message == f"An input is longer than the embedding model reads. {told}"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({}, None),
    ],
)
async def test_when_to_come_back(status, headers, seconds):
    async with running(mode="error", status=status, headers=headers) as (_, encoder):
        async with refused(
            "ENCODER_RATE_LIMITED" if status == 429 else "ENCODER_OVERLOADED"
        ) as caught:
            await encoder.encode(ONE, query=True)
    assert caught.value.retry_after == seconds


def data(*rows, **more):
    return json.dumps({"data": [{"index": n, "embedding": one} for n, one in enumerate(rows)]})


GOOD = [1.0] * DIMENSIONS


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        "[" * 100_000,
        "null",
        "[]",
        "{}",
        '{"data": null}',
        '{"data": [7]}',
        '{"data": [{}]}',
        data(),
        data(GOOD, GOOD),
        data([]),
        data(GOOD[:-1]),
        data([*GOOD, 1.0]),
        data([*GOOD[:-1], float("nan")]),
        data([*GOOD[:-1], float("inf")]),
        data([0.0] * DIMENSIONS),
        data([*GOOD[:-1], "high"]),
        data([[1.0], GOOD]),
        data("no base64!"),
        data(base64.b64encode(b"abc").decode()),
        json.dumps({"data": [{"index": 1, "embedding": GOOD}]}),
        json.dumps({"data": [{"index": "first", "embedding": GOOD}]}),
    ],
)
async def test_garbage(body):
    async with running(mode="garbage", body=body) as (_, encoder):
        async with refused("ENCODER_BAD_ANSWER", "INTERNAL"):
            await encoder.encode(ONE, query=True)


async def test_rows_of_two_lengths_in_two_requests():
    async with running(settings={"embedding_batch": 1}) as (server, encoder):
        made = await encoder.encode(ONE * 2, query=False)
        assert made.vectors.shape == (2, DIMENSIONS)
        server.dimensions = DIMENSIONS // 2
        async with refused("ENCODER_BAD_ANSWER", "INTERNAL"):
            await encoder.encode(ONE * 2, query=False)


async def test_an_answer_that_is_cut():
    async with running(mode="cut") as (_, encoder):
        async with refused("ENCODER_UNAVAILABLE", "UNAVAILABLE"):
            await encoder.encode(ONE, query=True)


async def test_a_server_that_says_nothing():
    async with running(mode="silent", settings={"embedding_timeout": 0.2}) as (_, encoder):
        async with refused("ENCODER_TIMEOUT", "DEADLINE_EXCEEDED"):
            await encoder.encode(ONE, query=True)


async def test_a_server_that_is_away_is_left_alone_for_a_while():
    async with embedding_server() as server:
        encoder = made("openai", server.url)
        await encoder.start()
    await encoder._server._client.aclose()
    encoder = made("openai", server.url)
    for _ in range(2):
        async with refused("ENCODER_UNAVAILABLE", "UNAVAILABLE") as caught:
            await encoder.encode(ONE, query=True)
        assert 0 < caught.value.retry_after <= 2
    await encoder.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_key_ends_the_start(kind):
    async with embedding_server(kind=kind, key="secret") as server:
        encoder = made(kind, server.url, embedding_api_key="another")
        async with refused("ENCODER_AUTHENTICATION_FAILED", "FAILED_PRECONDITION"):
            await encoder.start()
        await encoder.aclose()


async def test_a_nim_that_is_loading_is_asked_for_its_health_not_for_vectors(monkeypatch, caplog):
    monkeypatch.setattr("services.retrieve.adapters.openai._FIRST_PAUSE", 0.001)
    async with embedding_server(kind="nim", health=[503, 503, 200]) as server:
        encoder = made("nim", server.url)
        with caplog.at_level(logging.WARNING):
            async with asyncio.timeout(10):
                facts = await encoder.start()
        await encoder.aclose()
    assert facts.dimensions == DIMENSIONS
    assert (server.health_asked, len(server.requests)) == (3, 1)
    assert [one.reason for one in caplog.records] == ["ENCODER_LOADING"] * 2


@pytest.mark.parametrize(("kind", "health"), [("nim", []), ("openai", [503])])
async def test_others_are_asked_for_vectors_at_once(kind, health):
    async with embedding_server(kind=kind, health=health) as server:
        encoder = made(kind, server.url)
        async with asyncio.timeout(10):
            await encoder.start()
        await encoder.aclose()
    assert (server.health_asked, len(server.requests)) == (0, 1)
