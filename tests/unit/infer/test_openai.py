import json
from dataclasses import replace

import pytest

from services.infer.adapters.failures import STATUSES
from services.infer.adapters.openai import OpenAIEngine, OpenAISettings
from services.infer.adapters.openai_body import body_of
from services.infer.adapters.openai_errors import CODES, OPENAI_ERRORS
from services.infer.adapters.vllm import VllmEngine
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
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolChoiceMode,
    Usage,
    text_message,
)
from services.runtime.errors import RagmeshError
from tests.contract.infer.scripted_http import ScriptedServer, running
from tests.contract.infer.servers.openai import KEY, MODEL, TEXT, OpenAIServer, whole
from tests.contract.infer.servers.vllm import VllmServer

CHAT = GenerateRequest(model=MODEL, messages=(text_message(Role.USER, "hi"),), timeout=5.0)
# Reasons that the contract of Generate names.
REASONS = {
    "PARAMETER_INVALID",
    "PARAMETER_UNSUPPORTED",
    "CONTEXT_LENGTH_EXCEEDED",
    "CONTENT_FILTERED",
    "MODEL_NOT_FOUND",
    "ENGINE_QUOTA_EXCEEDED",
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


class Canned(ScriptedServer):
    """Sends the bytes that it is given, whatever is asked."""

    def __init__(self, *blocks, kind="text/event-stream"):
        super().__init__()
        self.blocks, self.kind = blocks, kind

    def start(self):
        self.settings = OpenAISettings(url=f"{self.url}/v1")

    async def answer(self, asked, reply):
        await reply.raw(self.blocks, self.kind)


async def canned(*blocks, kind="text/event-stream"):
    """The events that an engine makes of these blocks of bytes."""
    async with running(Canned(*blocks, kind=kind)) as server:
        return await run(OpenAIEngine(server.settings))


def sse(*chunks):
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def chunk(delta, finish=None, **more):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}


DONE = b"data: [DONE]\n\n"


async def test_a_stream_from_a_server():
    async with running(OpenAIServer()) as server:
        events = await run(OpenAIEngine(server.settings))
    assert events == [*map(Delta, TEXT), Finish(), Usage(7, 15, 3)]
    (request,) = server.asked
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body["stream_options"] == {"include_usage": True}


async def test_the_connection_is_kept():
    async with running(OpenAIServer()) as server:
        engine = OpenAIEngine(server.settings)
        for _ in range(3):
            assert [e async for e in engine.generate(CHAT)]
        await engine.aclose()
    assert server.connections == 1


async def test_a_server_that_does_not_stream():
    events = await canned(whole().encode(), kind="application/json")
    assert events == [Delta("".join(TEXT)), Finish(), Usage(7, 15)]


async def test_nobody_listens():
    async with running(OpenAIServer()) as server:
        settings = server.settings
    with pytest.raises(RagmeshError) as caught:
        await run(OpenAIEngine(settings))
    assert (caught.value.reason, caught.value.retry_after) == ("ENGINE_UNAVAILABLE", 1.0)
    engine = OpenAIEngine(settings)
    assert list(await engine.models()) == []
    with pytest.raises(RagmeshError):
        await engine.ready()
    await engine.aclose()


async def test_models_are_listed_with_their_context_and_remembered():
    async with running(VllmServer()) as server:
        engine = VllmEngine(server.settings)
        (model,) = await engine.models()
        count = len(server.asked)
        assert await engine.models() == [model]
        assert len(server.asked) == count
        await engine.aclose()
    assert (model.name, model.context_length) == (MODEL, 512)


async def test_everything_a_chunk_can_carry():
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"a":1}'}}
    logprob = {"token": "日", "logprob": -0.5, "bytes": [230, 151, 165], "top_logprobs": []}
    events = await canned(
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
    hm, text, first, second, finish, usage = events
    assert hm == Delta(reasoning="hm")
    assert text.text == "日\u2028x"
    assert text.logprobs[0].token_bytes == "日".encode()
    assert first.tool_calls == (ToolCallDelta(0, "c1", "f"),)
    assert second.tool_calls == (ToolCallDelta(0, arguments='{"a":1}'),)
    assert finish.reason is FinishReason.TOOL_CALLS
    assert usage == Usage(1, 2)


@pytest.mark.parametrize("reason", ["abort", "cancelled", "error", "timeout"])
async def test_an_answer_that_the_server_gave_up_is_no_whole_one(reason):
    with pytest.raises(RagmeshError) as caught:
        await canned(sse(chunk({"content": "Wel"}), chunk({}, reason)))
    assert caught.value.reason == "ENGINE_UNAVAILABLE"
    assert caught.value.retry_after == 1.0


async def test_a_stream_that_ends_inside_an_event_broke_off():
    event = sse(chunk({"content": "well"}))
    with pytest.raises(RagmeshError) as caught:
        await canned(event, event[:30])
    assert caught.value.reason == "ENGINE_UNAVAILABLE"


async def test_blocks_may_break_anywhere():
    data = sse(chunk({"content": "日本語"}), chunk({}, "stop")) + DONE
    events = await canned(*(data[i : i + 1] for i in range(len(data))))
    assert events[:2] == [Delta("日本語"), Finish()]
    windows = data.replace(b"\n", b"\r\n")
    assert (await canned(windows))[:2] == events[:2]


@pytest.mark.parametrize("data", [b"data: [1]\n\n", b'data: {"choices": [3]}\n\n', b"<html>"])
async def test_what_is_no_chunk_is_a_bad_answer(data):
    with pytest.raises(RagmeshError) as caught:
        await canned(data)
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
        (429, '{"error":{"code":"credit_balance_exhausted"}}', "ENGINE_QUOTA_EXCEEDED", None),
        (429, '{"error":{"code":"project_spend_limit_exceeded"}}', "ENGINE_QUOTA_EXCEEDED", None),
        (
            429,
            '{"error":{"code":"organization_usage_limit_exceeded","type":"requests"}}',
            "ENGINE_QUOTA_EXCEEDED",
            None,
        ),
        (200, '{"error":{"code":"server_is_overloaded"}}', "ENGINE_OVERLOADED", None),
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
    error = OPENAI_ERRORS.error(status, body)
    assert (error.reason, error.field) == (reason, field)
    assert "secret" not in error.message


def test_the_table_of_errors_is_complete():
    for meaning in (*STATUSES.values(), *CODES.values()):
        assert meaning.reason in REASONS
        assert meaning.message.endswith(".")
    for status in range(400, 600):
        assert OPENAI_ERRORS.error(status, "").reason in REASONS
    assert all(code == code.lower() for code in CODES)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, 1.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 1.0),
        ({}, 1.0),
    ],
)
def test_retry_after_is_passed_on_or_a_second(headers, seconds):
    assert OPENAI_ERRORS.error(429, "", headers).retry_after == seconds


async def test_top_k_is_for_other_servers_than_openais_own():
    own = OpenAIEngine(OpenAISettings())
    other = OpenAIEngine(OpenAISettings(url="http://gpu:8000/v1"))
    assert (own.capabilities().top_k, other.capabilities().top_k) == (False, True)
    await own.aclose()
    await other.aclose()
