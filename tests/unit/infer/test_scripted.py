import asyncio
import json
import time
from dataclasses import replace

import pytest

from services.infer.adapters.scripted import Script, ScriptedEngine, ScriptedSettings
from services.infer.ports import (
    Delta,
    Finish,
    FinishReason,
    FormatType,
    GenerateRequest,
    ResponseFormat,
    Role,
    Sampling,
    text_message,
)
from services.runtime.errors import InvalidArgument, ResourceExhausted, Unavailable
from tests.until import until


def request(stream=True, **directives):
    said = (text_message(Role.USER, "hi"),)
    return GenerateRequest(messages=said, stream=stream, extra={"scripted": directives})


async def run(engine, asked):
    return [event async for event in engine.generate(asked)]


def texts(events):
    return [event.text for event in events if isinstance(event, Delta)]


async def test_settings_and_directives():
    settings = ScriptedSettings(text="One two 日本語です", delay=0.0)
    engine = ScriptedEngine.from_settings(settings)
    assert texts(await run(engine, request())) == ["One", " two", " 日本語", "です"]
    assert texts(await run(engine, request(text="a b", repeat=2.0))) == ["a", " ba", " b"]
    assert texts(await run(engine, request(stream=False))) == ["One two 日本語です"]
    assert (engine.started, engine.finished, engine.aborted) == (3, 3, 0)


async def test_stop_texts_and_likely_tokens_are_honoured():
    asked = replace(request(), sampling=Sampling(stop=("two", "zz")), top_logprobs=1)
    *deltas, finish, _ = await run(ScriptedEngine(Script("One two three")), asked)
    assert "".join(one.text for one in deltas) == "One "
    assert finish == Finish(FinishReason.STOP)
    assert [len(one.logprobs[0].top) for one in deltas] == [1, 1]


async def test_delays():
    start = time.perf_counter()
    await run(ScriptedEngine(Script("a b c", first_delay=0.05, delay=0.05)), request())
    assert time.perf_counter() - start >= 0.15


async def test_failures():
    engine = ScriptedEngine(Script("a b c"))
    with pytest.raises(ResourceExhausted) as caught:
        await run(engine, request(mode="fail", reason="ENGINE_RATE_LIMITED", retry_after=2))
    assert caught.value.retry_after == 2
    seen = []
    with pytest.raises(Unavailable):
        async for event in engine.generate(request(mode="cut", after=2)):
            seen.append(event)
    assert texts(seen) == ["a", " b"]
    assert (engine.finished, engine.aborted) == (2, 0)


async def test_a_hang_ends_by_cancel():
    engine = ScriptedEngine(Script("a b c"))
    task = asyncio.ensure_future(run(engine, request(mode="hang")))
    await until(lambda: engine.started)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (engine.started, engine.aborted) == (1, 1)


async def test_tools_reasoning_and_refusals():
    calls = [{"name": "f", "arguments": {"a": 1}}]
    events = await run(ScriptedEngine(Script("x")), request(tool_calls=calls, reasoning="hm"))
    assert events[0].reasoning == "hm"
    pieces = [call for event in events[1:3] for call in event.tool_calls]
    assert (pieces[0].name, pieces[1].name) == ("f", "")
    assert json.loads("".join(piece.arguments for piece in pieces)) == {"a": 1}
    assert Finish(FinishReason.TOOL_CALLS) in events
    assert Finish(unanswered=True) in await run(
        ScriptedEngine(Script("x")), request(unanswered=True)
    )


async def test_json_is_json():
    asked = GenerateRequest(
        messages=(text_message(Role.USER, "x"),),
        response_format=ResponseFormat(FormatType.JSON_OBJECT),
    )
    said = "".join(texts(await run(ScriptedEngine(Script("plain")), asked)))
    assert json.loads(said) == {"answer": "plain"}


@pytest.mark.parametrize(
    "directives",
    [{"nope": 1}, {"text": 1}, {"delay": "x"}, {"mode": "dance"}, {"finish": "x"}, {"delay": -1}],
)
async def test_wrong_directives_are_refused(directives):
    with pytest.raises(InvalidArgument):
        await run(ScriptedEngine(Script("x")), request(**directives))
