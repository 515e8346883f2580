import json
from dataclasses import replace

import httpx
import pytest

from services.infer.adapters.openai import OpenAIEngine
from services.infer.adapters.openai_body import body_of
from services.infer.adapters.openai_errors import CODES, STATUSES, error_of
from services.infer.ports import (
    ContentPart,
    Delta,
    Finish,
    FinishReason,
    FormatType,
    GenerateRequest,
    Message,
    ResponseFormat,
    Role,
    Sampling,
    Task,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolChoiceMode,
    Usage,
    text_message,
)
from services.runtime.errors import RagmeshError
from tests.unit.infer.openai_server import MODEL, TEXT, openai_server

CHAT = GenerateRequest(model=MODEL, messages=(text_message(Role.USER, "hi"),), timeout=5.0)
# Reasons that the contract of Generate names.
REASONS = {
    "PARAMETER_INVALID",
    "PARAMETER_UNSUPPORTED",
    "CONTEXT_LENGTH_EXCEEDED",
    "MODEL_NOT_FOUND",
    "ENGINE_AUTHENTICATION_FAILED",
    "ENGINE_RATE_LIMITED",
    "ENGINE_UNAVAILABLE",
    "ENGINE_OVERLOADED",
    "ENGINE_TIMEOUT",
    "ENGINE_BAD_ANSWER",
}


async def run(engine, request=CHAT):
    try:
        return [event async for event in engine.generate(request)]
    finally:
        await engine.aclose()


def scripted(*blocks, status=200, headers=None):
    """An engine whose transport answers with these blocks of bytes."""

    async def stream():
        for block in blocks:
            yield block

    def handle(request):
        kind = {"content-type": "text/event-stream"}
        return httpx.Response(status, content=stream(), headers=headers or kind)

    return OpenAIEngine("http://engine/v1", transport=httpx.MockTransport(handle))


def sse(*chunks):
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def chunk(delta, finish=None, **more):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}


DONE = b"data: [DONE]\n\n"


async def test_a_stream_from_a_real_server():
    async with openai_server() as server:
        events = await run(OpenAIEngine(server.url, api_key="k"))
    assert events == [*map(Delta, TEXT), Finish(), Usage(7, 15)]
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["headers"]["authorization"] == "Bearer k"
    assert request["stream_options"] == {"include_usage": True}


async def test_the_connection_is_kept():
    async with openai_server() as server:
        engine = OpenAIEngine(server.url)
        for _ in range(3):
            assert [e async for e in engine.generate(CHAT)]
        await engine.aclose()
    assert server.connections == 1


async def test_usage_is_estimated_when_the_server_says_nothing():
    async with openai_server(usage=False) as server:
        *_, usage = await run(OpenAIEngine(server.url))
    assert usage.estimated
    assert usage.completion_tokens > 0


async def test_completions_go_to_their_own_route():
    async with openai_server() as server:
        events = await run(
            OpenAIEngine(server.url), replace(CHAT, task=Task.COMPLETE, text="Once", messages=())
        )
    assert events[:-1] == [*map(Delta, TEXT), Finish()]
    assert (server.requests[0]["path"], server.requests[0]["prompt"]) == ("/v1/completions", "Once")


async def test_a_server_that_does_not_stream():
    async with openai_server(mode="whole") as server:
        events = await run(OpenAIEngine(server.url))
    assert events == [Delta("".join(TEXT)), Finish(), Usage(7, 15)]


@pytest.mark.parametrize(
    ("state", "code", "reason"),
    [
        ({"mode": "cut"}, "UNAVAILABLE", "ENGINE_UNAVAILABLE"),
        ({"mode": "garbage"}, "INTERNAL", "ENGINE_BAD_ANSWER"),
        ({"mode": "event_error"}, "UNAVAILABLE", "ENGINE_UNAVAILABLE"),
        ({"key": "other"}, "FAILED_PRECONDITION", "ENGINE_AUTHENTICATION_FAILED"),
        ({"mode": "silent"}, "DEADLINE_EXCEEDED", "ENGINE_TIMEOUT"),
    ],
)
async def test_no_false_stop(state, code, reason):
    async with openai_server(**state) as server:
        seen = []
        engine = OpenAIEngine(server.url)
        with pytest.raises(RagmeshError) as caught:
            async for event in engine.generate(replace(CHAT, timeout=0.3)):
                seen.append(event)
        await engine.aclose()
    assert (caught.value.code, caught.value.reason) == (code, reason)
    assert not any(isinstance(event, Finish) for event in seen)


async def test_nobody_listens():
    async with openai_server() as server:
        url = server.url
    with pytest.raises(RagmeshError) as caught:
        await run(OpenAIEngine(url))
    assert (caught.value.reason, caught.value.retry_after) == ("ENGINE_UNAVAILABLE", 1.0)
    engine = OpenAIEngine(url)
    assert list(await engine.models()) == []
    with pytest.raises(RagmeshError):
        await engine.ready()


async def test_models_are_listed_with_their_context_and_remembered():
    async with openai_server() as server:
        engine = OpenAIEngine(server.url)
        (model,) = await engine.models()
        server.key = "changed"
        assert await engine.models() == [model]
        await engine.aclose()
    assert (model.name, model.context_length) == (MODEL, 512)


async def test_everything_a_chunk_can_carry():
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"a":1}'}}
    logprob = {"token": "日", "logprob": -0.5, "bytes": [230, 151, 165], "top_logprobs": []}
    events = await run(
        scripted(
            b": comment\n\n",
            sse(
                chunk({"role": "assistant", "content": ""}),
                chunk({"reasoning_content": "hm"}),
                chunk({"content": "日\u2028x"}, logprobs={"content": [logprob]}),
                chunk({"tool_calls": [call]}),
                chunk({"tool_calls": [more]}, "tool_calls"),
                {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
            ),
            DONE,
        )
    )
    hm, text, first, second, finish, usage = events
    assert hm == Delta(reasoning="hm")
    assert text.text == "日\u2028x"
    assert text.logprobs[0].token_bytes == "日".encode()
    assert first.tool_calls == (ToolCallDelta(0, "c1", "f"),)
    assert second.tool_calls == (ToolCallDelta(0, arguments='{"a":1}'),)
    assert finish.reason is FinishReason.TOOL_CALLS
    assert usage == Usage(1, 2)


async def test_blocks_may_break_anywhere():
    data = sse(chunk({"content": "日本語"}), chunk({}, "stop")) + DONE
    events = await run(scripted(*(data[i : i + 1] for i in range(len(data)))))
    assert events[:2] == [Delta("日本語"), Finish()]
    windows = data.replace(b"\n", b"\r\n")
    assert (await run(scripted(windows)))[:2] == events[:2]


@pytest.mark.parametrize("data", [b"data: [1]\n\n", b'data: {"choices": [3]}\n\n', b"<html>"])
async def test_what_is_no_chunk_is_a_bad_answer(data):
    with pytest.raises(RagmeshError) as caught:
        await run(scripted(data))
    assert caught.value.reason in ("ENGINE_BAD_ANSWER", "ENGINE_UNAVAILABLE")


def test_the_body_carries_what_was_asked():
    request = replace(
        CHAT,
        messages=(
            Message(Role.USER, (ContentPart("see"), ContentPart(image_url="https://x/y.png"))),
            Message(Role.ASSISTANT, tool_calls=(ToolCall("c", "f", "{}"),)),
            Message(Role.TOOL, (ContentPart("1"),), tool_call_id="c"),
        ),
        sampling=Sampling(temperature=0.0, top_k=5, max_tokens=9, stop=("x",), logit_bias={7: 1.0}),
        tools=(Tool("f", "does", '{"type": "object"}', strict=True),),
        tool_choice=ToolChoice(ToolChoiceMode.FUNCTION, "f"),
        response_format=ResponseFormat(FormatType.JSON_SCHEMA, '{"type": "object"}', "a", True),
        n=2,
        top_logprobs=3,
        parallel_tool_calls=False,
        extra={"min_p": 0.1, "model": "evil", "stream": False},
    )
    body = body_of(request)
    assert (body["model"], body["stream"], body["min_p"], body["n"]) == (MODEL, True, 0.1, 2)
    assert body["temperature"] == 0.0
    assert body["logit_bias"] == {"7": 1.0}
    assert body["messages"][0]["content"][1]["image_url"] == {"url": "https://x/y.png"}
    assert body["messages"][1]["content"] is None
    assert body["messages"][2]["tool_call_id"] == "c"
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert body["tools"][0]["function"]["strict"] is True
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (body["logprobs"], body["top_logprobs"]) == (True, 3)
    assert body["parallel_tool_calls"] is False
    assert "seed" not in body


@pytest.mark.parametrize(
    ("status", "body", "reason", "field"),
    [
        (401, '{"error":"Unauthorized"}', "ENGINE_AUTHENTICATION_FAILED", None),
        (
            404,
            '{"error":{"message":"x","type":"NotFoundError","code":404}}',
            "MODEL_NOT_FOUND",
            "model",
        ),
        (404, '{"detail":"Not Found"}', "ENGINE_UNAVAILABLE", None),
        (
            400,
            '{"error":{"message":"maximum context length is 512 tokens","param":"input_tokens"}}',
            "CONTEXT_LENGTH_EXCEEDED",
            "messages",
        ),
        (
            400,
            '{"error":{"code":"context_length_exceeded"}}',
            "CONTEXT_LENGTH_EXCEEDED",
            "messages",
        ),
        (
            400,
            '{"error":{"message":"secret","param":"temperature","code":400}}',
            "PARAMETER_INVALID",
            "temperature",
        ),
        (422, "{}", "PARAMETER_INVALID", None),
        (429, "slow down", "ENGINE_RATE_LIMITED", None),
        (500, "<html>", "ENGINE_UNAVAILABLE", None),
        (503, "", "ENGINE_OVERLOADED", None),
        (302, "", "ENGINE_BAD_ANSWER", None),
        (418, "", "PARAMETER_INVALID", None),
        (599, "[]", "ENGINE_UNAVAILABLE", None),
        (200, '{"error":{"message":"x","code":429}}', "ENGINE_RATE_LIMITED", None),
        (200, '{"error":"x"}', "ENGINE_UNAVAILABLE", None),
    ],
)
def test_errors_are_translated_and_not_quoted(status, body, reason, field):
    error = error_of(status, body)
    assert (error.reason, error.field) == (reason, field)
    assert "secret" not in error.message


def test_the_table_of_errors_is_complete():
    for meaning in (*STATUSES.values(), *CODES.values()):
        assert meaning.reason in REASONS
        assert meaning.message.endswith(".")
    for status in range(400, 600):
        assert error_of(status, "").reason in REASONS
    assert all(code == code.lower() for code in CODES)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_passed_on(headers, seconds):
    assert error_of(429, "", headers).retry_after == seconds
