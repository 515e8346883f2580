"""What Ollama's adapter does beyond the engine contract: images, thoughts, its models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from services.infer.adapters.ollama import OllamaEngine, OllamaSettings
from services.infer.lengths import ContextExceeded
from services.infer.ports import (
    ContentPart,
    Delta,
    GenerateRequest,
    Message,
    PullProgress,
    Role,
    ToolCall,
    text_message,
)
from services.infer.providers import build_provider
from services.infer.settings import InferSettings
from services.runtime.errors import InvalidArgument, NotFound, Unavailable
from tests.contract.infer import rig
from tests.contract.infer.scripted_http import running
from tests.contract.infer.servers.ollama import OTHER, OllamaServer, line
from tests.contract.infer.servers.openai import MODEL
from tests.until import until

CHAT = GenerateRequest(model=MODEL, messages=(text_message(Role.USER, "hi"),), timeout=5.0)


@asynccontextmanager
async def ollama() -> AsyncIterator[tuple[OllamaEngine, OllamaServer]]:
    async with running(OllamaServer()) as server:
        assert isinstance(server.settings, OllamaSettings)
        engine = OllamaEngine(server.settings)
        try:
            yield engine, server
        finally:
            await engine.aclose()


async def sent(request: GenerateRequest) -> dict:
    async with ollama() as (engine, server):
        async with aclosing(engine.generate(request)) as events:
            async for _ in events:
                pass
        return server.generations[-1]


async def test_an_image_in_the_request_goes_as_base64_beside_the_text():
    parts = (ContentPart("What is it?"), ContentPart(image_url="data:image/png;base64,aGk="))
    body = await sent(replace(CHAT, messages=(Message(Role.USER, parts),)))
    assert body["messages"] == [{"role": "user", "content": "What is it?", "images": ["aGk="]}]


async def test_a_runner_that_does_not_say_how_long_a_prompt_may_be_is_looked_up():
    class Silent(OllamaServer):
        async def answer(self, asked, reply):
            if asked.path == "/api/ps":
                running_now = [{"name": OTHER, "model": OTHER, "context_length": 1}]
                running_now.append({"name": MODEL, "model": MODEL, "context_length": 4096})
                return await reply.send(200, {"models": running_now})
            if asked.path == "/api/chat":
                error = {"error": "the input length exceeds the context length"}
                return await reply.send(400, error)
            return await super().answer(asked, reply)

    async with running(Silent()) as server:
        engine = OllamaEngine(server.settings)
        with pytest.raises(ContextExceeded) as caught:
            await anext(engine.generate(CHAT))
        await engine.aclose()
    assert (caught.value.needed, caught.value.limit) == (None, 4096)
    assert "4096 tokens" in caught.value.message


async def test_a_stream_that_ends_inside_a_line_broke_off():
    class Cut(OllamaServer):
        async def answer(self, asked, reply):
            whole = line(message={"role": "assistant", "content": "well"}, done=False).encode()
            return await reply.raw([whole, whole[:20]], self.content_type)

    async with running(Cut()) as server:
        engine = OllamaEngine(server.settings)
        with pytest.raises(Unavailable):
            async for _ in engine.generate(CHAT):
                pass
        await engine.aclose()


async def test_an_image_elsewhere_is_refused():
    parts = (ContentPart(image_url="https://example.org/cat.png"),)
    with pytest.raises(InvalidArgument) as caught:
        await sent(replace(CHAT, messages=(Message(Role.USER, parts),)))
    assert (caught.value.reason, caught.value.field) == ("PARAMETER_UNSUPPORTED", "messages")


async def test_a_tools_result_goes_back_with_parsed_arguments():
    call = ToolCall("c1", "weather", '{"city": "東京"}')
    history = (
        *CHAT.messages,
        Message(Role.ASSISTANT, tool_calls=(call,)),
        Message(Role.TOOL, (ContentPart("晴れ"),), name="weather", tool_call_id="c1"),
    )
    body = await sent(replace(CHAT, messages=history))
    assert body["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"city": "東京"}
    assert body["messages"][2] == {
        "role": "tool", "content": "晴れ", "tool_call_id": "c1", "tool_name": "weather",
    }  # fmt: skip


async def test_options_of_the_request_are_passed_on_and_ours_win():
    extra = {"options": {"num_ctx": 4096, "temperature": 1.0}, "think": True}
    body = await sent(replace(CHAT, extra=extra, sampling=replace(CHAT.sampling, temperature=0.0)))
    assert body["options"] == {"num_ctx": 4096, "temperature": 0.0}
    assert body["think"] is True


async def test_pulling_tells_its_progress():
    async with ollama() as (engine, _):
        steps = [step async for step in engine.pull(OTHER)]
    assert steps[0] == PullProgress("pulling manifest")
    assert [step.completed for step in steps if step.total] == [50, 100]
    assert steps[-1].status == "success"


async def test_pulling_what_does_not_exist_is_not_found():
    async with ollama() as (engine, _):
        with pytest.raises(NotFound) as caught:
            [step async for step in engine.pull("nothing")]
    assert caught.value.reason == "MODEL_NOT_FOUND"


async def test_loading_and_unloading():
    async with ollama() as (engine, server):
        await engine.load(MODEL)
        assert server.loaded == {MODEL}
        await engine.unload(MODEL)
        assert server.loaded == set()
        await engine.unload("nothing")


async def test_one_model_at_a_time_is_loaded():
    async with running(OllamaServer()) as server:
        built = build_provider("ollama", InferSettings(model_backend="ollama"), server.settings)

        async def ask(model: str) -> None:
            end = asyncio.get_running_loop().time() + 10
            async with (
                built.admission.slot(end, model=model),
                aclosing(built.engine.generate(replace(CHAT, model=model))) as events,
            ):
                async for event in events:
                    if isinstance(event, Delta):
                        assert server.loaded == {model}

        server.behave(rig.HANG)
        first = asyncio.ensure_future(ask(MODEL))
        await until(lambda: server.running)
        second = asyncio.ensure_future(ask(OTHER))
        await until(lambda: built.admission.waiting == 1)
        server.mode = ""
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await second
        assert server.loaded == {OTHER}
        await built.engine.aclose()
