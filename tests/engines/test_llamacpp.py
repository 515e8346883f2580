"""llama.cpp in this process: what it refuses instead of ending the process; who waits for whom."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest
import pytest_asyncio

from services.infer.adapters.llamacpp import LlamaCppEngine, LlamaCppSettings
from services.infer.ports import (
    FormatType,
    GenerateRequest,
    Guide,
    GuideKind,
    ResponseFormat,
    Role,
    Sampling,
    Task,
    text_message,
)
from services.runtime.errors import InvalidArgument, RagmeshError
from tests.conftest import NOT_APPLICABLE, SHARED_DATA

llama_cpp = pytest.importorskip("llama_cpp", reason=f"{NOT_APPLICABLE}llama.cpp is not installed")
pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = SHARED_DATA / "models" / "known_answer" / "known_answer-f32.gguf"
CHAT = GenerateRequest(
    messages=(text_message(Role.USER, "hi"),), sampling=Sampling(temperature=0.0, max_tokens=8)
)
ENDLESS = GenerateRequest(
    task=Task.COMPLETE, text="once", guide=Guide(GuideKind.GRAMMAR, ("root ::= [a-z ]*",))
)
"""Goes on to the end of the context: no rule of it lets the model stop where it wants to."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[LlamaCppEngine]:
    if not MODEL.is_file():
        pytest.skip(f"{NOT_APPLICABLE}there is no model beside the checkout")
    made = LlamaCppEngine(LlamaCppSettings(model_path=str(MODEL)), llama_cpp)
    await made.ready()
    yield made
    await made.aclose()


async def drained(engine: LlamaCppEngine, request: GenerateRequest) -> list[object]:
    async with aclosing(engine.generate(request)) as events:
        return [event async for event in events]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "unicorn"},
        {"type": "object", "properties": ["a"]},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "#/definitions/none"},
        {"type": "string", "pattern": "no anchors"},
        {"type": "array", "items": 5},
        {"anyOf": 3},
    ],
)
async def test_a_schema_that_is_no_grammar_is_refused_by_name(engine, schema) -> None:
    wanted = ResponseFormat(FormatType.JSON_SCHEMA, json.dumps(schema))
    with pytest.raises(InvalidArgument) as caught:
        await drained(engine, replace(CHAT, response_format=wanted))
    assert (caught.value.reason, caught.value.field) == ("PARAMETER_INVALID", "response_format")


@pytest.mark.parametrize(
    "guide",
    [Guide(GuideKind.GRAMMAR, ("root ::= (",)), Guide(GuideKind.CHOICE, ("a\bc", "d"))],
)
async def test_a_guide_that_is_no_grammar_is_refused_by_name(engine, guide) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await drained(engine, replace(CHAT, guide=guide))
    assert caught.value.field == f"guided_{guide.kind.value}"
    assert await drained(engine, CHAT)


async def test_it_is_ready_and_counts_while_it_generates(engine) -> None:
    running = asyncio.ensure_future(drained(engine, ENDLESS))
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await engine.ready()
        assert await engine.count_tokens(CHAT) > 1
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_the_template_refuses_is_the_callers_matter(engine, monkeypatch) -> None:
    def refuse(**_: object) -> None:
        raise ValueError("Conversation roles must alternate")  # as Jinja2ChatFormatter does

    monkeypatch.setattr(engine._model, "_template", refuse)
    with pytest.raises(InvalidArgument) as caught:
        await drained(engine, CHAT)
    assert (caught.value.reason, caught.value.field) == ("PARAMETER_INVALID", "messages")


async def test_what_the_library_raises_is_ours_and_the_next_caller_is_served(
    engine, monkeypatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("llama_decode returned -3")

    with monkeypatch.context() as patch:
        patch.setattr(engine._model, "_sampled", fail)
        with pytest.raises(RagmeshError) as caught:
            await drained(engine, CHAT)
    assert caught.value.reason == "ENGINE_BAD_ANSWER"
    assert await drained(engine, CHAT)
