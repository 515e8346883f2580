"""The OpenAI routes: SSE byte by byte, and the real client."""

import asyncio
import base64
import re
import struct

import openai
import pytest

from ragmesh.infer.v1 import infer_pb2
from services.runtime.errors import InvalidArgument, Unavailable
from tests.gateway.conftest import running, token
from tests.gateway.mesh import answer, delta, finish, started, usage

CHAT = {"messages": [{"role": "user", "content": "Is tea hot?"}]}
PATH = "/v1/chat/completions"


def steady(body: bytes) -> str:
    """A stream with its id and time made constant; they must not change within it."""
    ids = set(re.findall(rb'"id":"((?:chatcmpl|cmpl)-[0-9a-f]{32})"', body))
    times = set(re.findall(rb'"created":(\d+)', body))
    assert len(ids) == 1
    assert len(times) == 1
    return body.replace(ids.pop(), b"ID").replace(times.pop(), b"0").decode()


def chunk(choices: str, tail: str = "") -> str:
    head = '{"id":"ID","object":"chat.completion.chunk","created":0,"model":"fake/echo"'
    return f'data: {head},"choices":[{choices}]{tail}}}\n\n'


@pytest.fixture
async def client(gateway):
    async with openai.AsyncOpenAI(
        base_url=f"{gateway.base_url}/v1", api_key=token(), max_retries=0
    ) as made:
        yield made


async def test_stream_byte_by_byte(gateway):
    response = await gateway.post(
        PATH, {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    )
    no = ',"usage":null'
    assert steady(response.content) == (
        chunk(
            '{"index":0,"delta":{"role":"assistant","content":""},'
            '"logprobs":null,"finish_reason":null}',
            no,
        )
        + chunk(
            '{"index":0,"delta":{"content":"Tea is "},"logprobs":null,"finish_reason":null}', no
        )
        + chunk(
            '{"index":0,"delta":{"content":"hot [1]."},"logprobs":null,"finish_reason":null}', no
        )
        + chunk('{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}', no)
        + chunk("", ',"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}')
        + "data: [DONE]\n\n"
    )
    assert gateway.mesh.infer.requests[-1].stream


async def test_stream_without_usage(gateway):
    body = (await gateway.post(PATH, {**CHAT, "stream": True})).content
    assert b"usage" not in body
    assert body.endswith(b'"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')


async def test_failure_before_the_first_delta(gateway):
    for late in ([started()], [started(), delta("")], []):
        failure = Unavailable("ENGINE_OVERLOADED", "Busy.", retry_after=1.5)
        gateway.mesh.infer.script = [*late, failure]
        response = await gateway.post(PATH, {**CHAT, "stream": True})
        assert response.status_code == 503
        assert response.headers["content-type"] == "application/json"
        assert response.headers["retry-after"] == "2"
        assert response.headers["retry-after-ms"] == "1500"
        assert response.headers["x-should-retry"] == "true"


async def test_failure_in_the_middle(gateway):
    for failure in (Unavailable("ENGINE_UNAVAILABLE", "Gone."), RuntimeError("a secret")):
        gateway.mesh.infer.script = [started(), delta("Tea"), failure]
        response = await gateway.post(PATH, {**CHAT, "stream": True})
        assert response.status_code == 200
        last = response.text.rstrip("\n").split("\n\n")[-1]
        assert last.startswith('data: {"error":{"message":')
        assert "stop" not in response.text
        assert "[DONE]" not in response.text
        assert "secret" not in response.text


async def test_stream_that_breaks_off_is_an_error(gateway):
    gateway.mesh.infer.script = [started(), delta("Tea")]
    response = await gateway.post(PATH, {**CHAT, "stream": True})
    assert '"code":"engine_bad_answer"' in response.text
    assert "[DONE]" not in response.text
    assert (await gateway.post(PATH, CHAT)).status_code == 500


async def test_idle_stream_is_kept_alive(tmp_path):
    async with running(tmp_path, keepalive_seconds=0.05) as gateway:
        gate = asyncio.Event()
        gateway.mesh.infer.script = [started(), delta("Tea"), gate, finish(), usage()]
        asyncio.get_running_loop().call_later(0.3, gate.set)
        body = (await gateway.post(PATH, {**CHAT, "stream": True})).text
        assert body.count(": keep-alive\n\n") >= 2
        assert body.endswith("data: [DONE]\n\n")


async def test_tool_calls_in_pieces(gateway):
    piece = infer_pb2.ToolCallDelta
    gateway.mesh.infer.script = [
        started(),
        delta("", tool_calls=[piece(index=0, id="c1", name="weather", arguments="")]),
        delta("", tool_calls=[piece(index=0, arguments='{"city":')]),
        delta("", tool_calls=[piece(index=0, arguments='"Oslo"}')]),
        finish(reason=infer_pb2.FINISH_REASON_TOOL_CALLS),
        usage(),
    ]
    asked = {
        **CHAT,
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
    }
    body = (await gateway.post(PATH, {**asked, "stream": True})).text
    assert (
        '"tool_calls":[{"index":0,"id":"c1","type":"function",'
        '"function":{"name":"weather","arguments":""}}]' in body
    )
    assert '"tool_calls":[{"index":0,"function":{"arguments":"{\\"city\\":"}}]' in body
    message = (await gateway.post(PATH, asked)).json()["choices"][0]
    assert message["finish_reason"] == "tool_calls"
    assert message["message"]["content"] is None
    assert message["message"]["tool_calls"] == [
        {
            "id": "c1",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
        }
    ]
    request = gateway.mesh.infer.requests[-1]
    assert request.tool_choice.function == "weather"
    assert request.tools[0].parameters_json == "{}"


async def test_every_parameter_reaches_the_engine(gateway):
    asked = {
        "model": "fast",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                ],
            },
        ],
        "temperature": 0,
        "top_p": 0.5,
        "max_completion_tokens": 9,
        "stop": ["a", "b"],
        "seed": -5,
        "n": 2,
        "presence_penalty": 1,
        "logit_bias": {"50256": -100},
        "logprobs": True,
        "top_logprobs": 3,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True},
        },
        "parallel_tool_calls": False,
        "user": "u-1",
        "guided_choice": ["yes", "no"],
    }
    gateway.mesh.infer.script = [
        started(), delta("a"), delta("b", index=1), finish(), finish(1), usage(),
    ]  # fmt: skip
    response = await gateway.post(PATH, asked)
    assert [each["message"]["content"] for each in response.json()["choices"]] == ["a", "b"]
    request = gateway.mesh.infer.requests[-1]
    assert request.model == "fast"
    assert request.task == infer_pb2.TASK_CHAT
    assert request.messages[1].content[1].image_url.startswith("data:")
    sampling = request.sampling
    assert sampling.HasField("temperature")
    assert (sampling.max_tokens, list(sampling.stop), sampling.seed) == (9, ["a", "b"], -5)
    assert sampling.logit_bias[50256] == -100
    assert (request.n, request.top_logprobs) == (2, 3)
    assert request.response_format.json_schema == '{"type":"object"}'
    assert not request.parallel_tool_calls
    assert dict(request.extra)["user"] == "u-1"
    assert list(request.extra["guided_choice"]) == ["yes", "no"]


async def test_retrieval_makes_a_chat_cite(gateway):
    await gateway.collection()
    gateway.mesh.infer.script = answer("Tea is hot [1]. Ice [9].")
    asked = {**CHAT, "retrieval": {"collection": "docs", "top_k": 2}}
    message = (await gateway.post(PATH, asked)).json()["choices"][0]["message"]
    assert message["content"] == "Tea is hot [1]. Ice."
    assert message["citations"][0]["document_id"] == "tea"
    assert gateway.mesh.infer.requests[-1].task == infer_pb2.TASK_ANSWER
    body = steady((await gateway.post(PATH, {**asked, "stream": True})).content)
    last = body.rstrip("\n").split("\n\n")[-2]
    assert '"delta":{"citations":[{"marker":1,' in last
    assert '"finish_reason":"stop"' in last


async def test_chat_in_a_session(gateway):
    await gateway.post(PATH, {**CHAT, "session_id": "s1"})
    await gateway.post(PATH, {**CHAT, "session_id": "s1"})
    messages = gateway.mesh.infer.requests[-1].messages
    assert [each.content[0].text for each in messages] == [
        "Is tea hot?",
        "Tea is hot [1].",
        "Is tea hot?",
    ]


async def test_completions(gateway):
    response = await gateway.post("/v1/completions", {"prompt": ["a", "b"], "model": "default"})
    body = response.json()
    assert [(each["index"], each["text"]) for each in body["choices"]] == [
        (0, "Tea is hot [1]."),
        (1, "Tea is hot [1]."),
    ]
    assert body["usage"]["total_tokens"] == 20
    assert gateway.mesh.infer.requests[-1].text == "b"
    stream = await gateway.post("/v1/completions", {"prompt": "a", "stream": True})
    assert stream.text.startswith('data: {"id":"cmpl-')
    assert stream.text.endswith("data: [DONE]\n\n")


async def test_openai_client(gateway, client):
    models = [model.id async for model in client.models.list()]
    assert models == ["default", "fake/echo", "fake-encoder", "default-embedding"]
    assert (await client.models.retrieve("fake/echo")).owned_by == "fake"
    made = await client.chat.completions.create(model="default", **CHAT)
    assert made.choices[0].message.content == "Tea is hot [1]."
    stream = await client.chat.completions.create(
        model="default", stream=True, stream_options={"include_usage": True}, **CHAT
    )
    chunks = [each async for each in stream]
    assert "".join(each.choices[0].delta.content or "" for each in chunks[:-1]) == "Tea is hot [1]."
    assert chunks[-1].usage.total_tokens == 10
    embedded = await client.embeddings.create(model="default-embedding", input=["a", "b"])
    assert [each.embedding for each in embedded.data] == [[0.5, -0.25]] * 2


async def test_openai_client_errors(gateway, client):
    gateway.mesh.infer.script = [InvalidArgument("PARAMETER_UNSUPPORTED", "No seed.", field="seed")]
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="default", seed=1, **CHAT)
    assert (caught.value.param, caught.value.code) == ("seed", "parameter_unsupported")
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("no/such/model")
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="nonsense").models.list()
    gateway.mesh.infer.script = [started(), delta("Tea"), Unavailable("ENGINE_UNAVAILABLE", "Gone")]
    with pytest.raises(openai.APIError, match="Gone"):
        async for _ in await client.chat.completions.create(model="default", stream=True, **CHAT):
            pass


async def test_embedding_formats(gateway):
    plain = {"input": [[1, 2, 3], [4]], "input_type": "query", "dimensions": 2}
    body = (await gateway.post("/v1/embeddings", plain)).json()
    assert body["data"][1] == {"object": "embedding", "index": 1, "embedding": [0.5, -0.25]}
    request = gateway.mesh.retrieve.embeds[-1]
    assert list(request.inputs[0].tokens.ids) == [1, 2, 3]
    body = (
        await gateway.post("/v1/embeddings", {"input": "x", "encoding_format": "base64"})
    ).json()
    packed = base64.b64decode(body["data"][0]["embedding"])
    assert struct.unpack("<2f", packed) == (0.5, -0.25)
    assert (await gateway.post("/v1/embeddings", {"input": [1, 2]})).status_code == 200
    simple = (await gateway.post("/v1/embed", {"text": "x"})).json()
    assert simple["embedding"] == [0.5, -0.25]


async def test_generate_and_summarize(gateway):
    made = (await gateway.post("/v1/generate", {"text": "Hello"})).json()
    assert made == {
        "text": "Tea is hot [1].",
        "model": "fake/echo",
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
    await gateway.post("/v1/summarize", {"text": "Long", "length": "short", "language": "ja"})
    request = gateway.mesh.infer.requests[-1]
    assert (request.task, request.text, request.language) == (
        infer_pb2.TASK_SUMMARIZE,
        "Long",
        "ja",
    )
    assert request.summary_length == infer_pb2.SUMMARY_LENGTH_SHORT
    await gateway.collection()
    await gateway.post(
        "/v1/collections/docs/documents", {"documents": [{"id": "a", "text": "One\n\nTwo"}]}
    )
    await gateway.post("/v1/summarize", {"document_id": "a", "collection": "docs"})
    assert gateway.mesh.infer.requests[-1].text == "One\n\nTwo"
    stream = await gateway.post("/v1/generate", {"text": "Hello", "stream": True})
    assert stream.text.count("event: delta\n") == 2
    assert "event: done\n" in stream.text


async def test_estimated_usage_is_marked_and_openais_client_takes_it(gateway, client):
    told = usage()
    told.usage.estimated = True
    gateway.mesh.infer.script = [started(), delta("Tea"), finish(), told]
    made = await client.chat.completions.create(model="default", **CHAT)
    assert made.usage is not None
    assert made.usage.total_tokens == 10
    assert made.usage.model_extra == {"estimated": True}
    text = await client.completions.create(model="default", prompt=["a", "b"])
    assert text.usage is not None
    assert (text.usage.total_tokens, text.usage.model_extra) == (20, {"estimated": True})
