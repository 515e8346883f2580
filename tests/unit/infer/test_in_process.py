"""What adapters make of libraries that misbehave; libraries are played, as far as they matter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from services.infer.adapters import llamacpp_server, vllm_local
from services.infer.adapters.litellm import LiteLlmEngine, LiteLlmSettings
from services.infer.adapters.llamacpp import LlamaCppSettings
from services.infer.adapters.llamacpp_server import LlamaCppServer
from services.infer.adapters.ollama import OllamaEngine, OllamaSettings
from services.infer.adapters.vllm_local import VllmLocalEngine, VllmLocalSettings
from services.infer.ports import (
    Delta,
    Finish,
    FinishReason,
    FormatType,
    GenerateRequest,
    ResponseFormat,
    Role,
    Task,
    Usage,
    text_message,
)
from services.runtime.errors import RagmeshError
from tests.contract.infer.scripted_http import running
from tests.contract.infer.servers.llamacpp import LlamaServer
from tests.contract.infer.servers.ollama import OllamaServer, line
from tests.contract.infer.servers.openai import MODEL

CHAT = GenerateRequest(model=MODEL, messages=(text_message(Role.USER, "hi"),), timeout=5.0)
COMPLETE = GenerateRequest(task=Task.COMPLETE, text="once")


async def collect(engine: Any, request: GenerateRequest) -> list[object]:
    async with aclosing(engine.generate(request)) as events:
        return [event async for event in events]


# litellm


class Library:
    """LiteLLM, which asks a model's server for its length and waits for the answer."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def get_model_info(self, model: str) -> dict[str, int]:
        self.asked.append(threading.get_ident())
        return {"max_input_tokens": 4096}


async def test_litellm_is_asked_for_a_length_once_and_not_in_the_loop():
    library = Library()
    engine = LiteLlmEngine(LiteLlmSettings(model="ollama/phi3"), library)
    for _ in range(3):
        (info,) = await engine.models()
        assert (info.name, info.context_length) == ("ollama/phi3", 4096)
    assert len(library.asked) == 1
    assert library.asked != [threading.get_ident()]


async def test_litellm_is_not_asked_for_a_length_that_is_set():
    library = Library()
    engine = LiteLlmEngine(LiteLlmSettings(model="ollama/phi3", context_length=100), library)
    assert (await engine.models())[0].context_length == 100
    assert library.asked == []


# vllm-local


class Vllm(SimpleNamespace):
    """vLLM as far as the adapter uses it, with an engine that says `reason` at its end."""

    def __init__(self, reason: str = "stop") -> None:
        def either(*_: object, **fields: object) -> SimpleNamespace:
            return SimpleNamespace(**fields)

        async def generate(*_: object) -> AsyncIterator[SimpleNamespace]:
            one: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": None}
            yield _output(SimpleNamespace(**one, text="日本", token_ids=[1, 2]))
            one["finish_reason"] = reason
            yield _output(SimpleNamespace(**one, text="", token_ids=[3]))

        self.starts = self.shutdowns = 0
        self.engine = SimpleNamespace(
            generate=generate,
            get_tokenizer=Tokenizer,
            model_config=SimpleNamespace(max_model_len=512),
            errored=False,
            shutdown=self.shut_down,
        )
        self.AsyncEngineArgs = either
        self.AsyncLLMEngine = SimpleNamespace(from_engine_args=self.start)
        self.SamplingParams = either
        self.sampling_params = SimpleNamespace(
            RequestOutputKind=SimpleNamespace(DELTA="delta"), StructuredOutputsParams=either
        )
        self.exceptions = SimpleNamespace(VLLMClientError=KeyError, GracefulHTTPError=OSError)

    def start(self, _: object) -> SimpleNamespace:
        self.starts += 1
        return self.engine

    def shut_down(self) -> None:
        self.shutdowns += 1


class Tokenizer:
    """Of transformers."""

    all_special_ids = ()
    chat_template = "yes"

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [0] * len(text)}


def _output(one: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(outputs=[one], num_cached_tokens=0)


def vllm(monkeypatch: pytest.MonkeyPatch, library: Vllm) -> VllmLocalEngine:
    monkeypatch.setattr(vllm_local, "package", lambda *_: library)
    return VllmLocalEngine(VllmLocalSettings(model_path="model"))


async def test_what_vllm_ends_by_itself_is_an_end(monkeypatch):
    engine = vllm(monkeypatch, Vllm())
    assert await collect(engine, COMPLETE) == [Delta("日本"), Finish(), Usage(4, 3)]
    await engine.aclose()
    engine = vllm(monkeypatch, Vllm("length"))
    assert Finish(FinishReason.LENGTH) in await collect(engine, COMPLETE)
    await engine.aclose()


@pytest.mark.parametrize("reason", ["abort", "error"])
async def test_what_vllm_gives_up_is_no_end(monkeypatch, reason):
    engine = vllm(monkeypatch, Vllm(reason))
    with pytest.raises(RagmeshError) as caught:
        await collect(engine, COMPLETE)
    await engine.aclose()
    assert caught.value.reason == "ENGINE_UNAVAILABLE"


async def test_a_closed_vllm_is_not_started_again(monkeypatch):
    library = Vllm()
    engine = vllm(monkeypatch, library)
    await collect(engine, COMPLETE)
    await engine.aclose()
    with pytest.raises(RagmeshError) as caught:
        await collect(engine, COMPLETE)
    assert caught.value.reason == "ENGINE_UNAVAILABLE"
    assert (library.starts, library.shutdowns) == (1, 1)


async def test_closing_vllm_while_it_starts_leaves_none_behind(monkeypatch):
    library = Vllm()
    may_start = threading.Event()

    def package(*_: object) -> Vllm:
        may_start.wait(10)
        return library

    monkeypatch.setattr(vllm_local, "package", package)
    engine = VllmLocalEngine(VllmLocalSettings(model_path="model"))
    starting = asyncio.ensure_future(collect(engine, COMPLETE))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(engine.aclose())
    await asyncio.sleep(0)
    may_start.set()
    await closing
    await asyncio.gather(starting, return_exceptions=True)
    assert library.starts == library.shutdowns


# servers


async def test_a_pull_with_counts_that_are_none_is_a_bad_answer():
    class Odd(OllamaServer):
        async def pull(self, body, reply):
            await reply.raw([line(status="pulling", total="many").encode()], self.content_type)

    async with running(Odd()) as server:
        assert isinstance(server.settings, OllamaSettings)
        engine = OllamaEngine(server.settings)
        with pytest.raises(RagmeshError) as caught:
            async for _ in engine.pull(MODEL):
                pass
        await engine.aclose()
    assert caught.value.reason == "ENGINE_BAD_ANSWER"


async def test_llamacpps_text_completions_take_schemas_by_another_name():
    schema = ResponseFormat(FormatType.JSON_SCHEMA, '{"type": "object"}')
    text = GenerateRequest(
        model=MODEL, task=Task.COMPLETE, text="x", response_format=schema, top_logprobs=0
    )
    async with running(LlamaServer()) as server:
        engine = LlamaCppServer(server.settings)
        events = [event async for event in engine.generate(text)]
        await engine.aclose()
    assert server.generations[-1]["json_schema"] == {"type": "object"}
    assert "response_format" not in server.generations[-1]
    tokens = [token for one in events if isinstance(one, Delta) for token in one.logprobs]
    assert tokens
    assert not any(token.top for token in tokens)


async def test_a_llamacpp_server_that_does_not_say_why_has_broken_off(monkeypatch):
    class Silent(LlamaServer):
        """Ends a stream before it begins, and does not answer when it is asked why."""

        async def generate(self, body, reply):
            if body["stream"]:
                return await reply.stream(())
            await asyncio.Event().wait()

    monkeypatch.setattr(llamacpp_server, "ASKING_TIMEOUT", 0.05)
    async with running(Silent()) as server:
        assert isinstance(server.settings, LlamaCppSettings)
        engine = LlamaCppServer(server.settings)
        with pytest.raises(RagmeshError) as caught:
            await collect(engine, CHAT)
        await engine.aclose()
    assert caught.value.reason == "ENGINE_UNAVAILABLE"
