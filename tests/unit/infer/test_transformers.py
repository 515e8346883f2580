"""What engines in this process do beyond the contract, with a small model made on the spot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services.infer.adapters.transformers import TransformersEngine, TransformersSettings
from services.infer.ports import (
    Delta,
    Finish,
    FinishReason,
    GenerateRequest,
    Role,
    Sampling,
    Task,
    text_message,
)
from services.runtime.errors import InvalidArgument, RagmeshError
from tests.engines.random_model import make

CHAT = GenerateRequest(
    messages=(text_message(Role.USER, "hi"),), sampling=Sampling(temperature=0.0, max_tokens=8)
)
LONG = GenerateRequest(
    task=Task.COMPLETE,
    text="The quick brown fox",
    sampling=Sampling(temperature=1.0, logit_bias={0: -100.0, 1: -100.0, 2: -100.0}),
)
"""Goes on to the end of the context."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("model"), dtype="float32")


@asynccontextmanager
async def engine(path: Path) -> AsyncIterator[TransformersEngine]:
    made = TransformersEngine.from_settings(
        TransformersSettings(model_path=str(path), device="cpu", dtype="float32")
    )
    try:
        yield made
    finally:
        await made.aclose()


async def test_it_is_ready_and_counts_while_it_generates(folder):
    async with engine(folder) as made:
        await made.ready()
        async with aclosing(made.generate(LONG)) as events:
            async for event in events:
                assert isinstance(event, Delta)
                break
            # Nobody reads on, and the thread is busy: neither may wait for it.
            async with asyncio.timeout(20):
                blocker = asyncio.ensure_future(_drained(made, LONG))
                await asyncio.sleep(0)
                await made.ready()
                assert await made.count_tokens(CHAT) > 4
                assert not blocker.done()
        blocker.cancel()
        await asyncio.gather(blocker, return_exceptions=True)


async def _drained(made: TransformersEngine, request: GenerateRequest) -> list[object]:
    async with aclosing(made.generate(request)) as events:
        return [event async for event in events]


async def test_closing_it_ends_a_generation_with_an_error(folder):
    async with engine(folder) as made:
        await made.ready()
        running = asyncio.ensure_future(_drained(made, LONG))
        await asyncio.sleep(0.05)
        await made.aclose()
        with pytest.raises(RagmeshError) as caught:
            async with asyncio.timeout(20):
                await running
        assert caught.value.reason == "ENGINE_UNAVAILABLE"


async def test_an_end_token_of_the_number_0_ends_an_answer(tmp_path: Path):
    ended = replace(CHAT, sampling=Sampling(temperature=0.0, logit_bias={0: 100.0}))
    async with engine(make(tmp_path, dtype="float32", end="<|pad|>")) as made:
        events = await _drained(made, ended)
    assert Finish(FinishReason.STOP) in events


async def test_what_the_template_refuses_is_the_callers_matter(tmp_path: Path):
    strict = (
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}{{ m['content'] }}"
        "{% endfor %}"
    )
    system = replace(CHAT, messages=(text_message(Role.SYSTEM, "Be brief."), *CHAT.messages))
    async with engine(make(tmp_path, dtype="float32", chat_template=strict)) as made:
        for asked in (_drained(made, system), made.count_tokens(system)):
            with pytest.raises(InvalidArgument) as caught:
                await asked
            assert (caught.value.reason, caught.value.field) == ("PARAMETER_INVALID", "messages")
        assert await _drained(made, CHAT)


async def test_what_the_library_raises_is_ours(folder, monkeypatch):
    async with engine(folder) as made:
        await made.ready()
        monkeypatch.setattr(type(made._model), "_how", lambda *_: {"max_time": "no number"})
        with pytest.raises(RagmeshError) as caught:
            await _drained(made, CHAT)
    assert (caught.value.code, caught.value.reason) == ("INTERNAL", "ENGINE_BAD_ANSWER")
