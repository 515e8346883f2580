"""What real engines are asked beside the contract; each module collects these with its engines."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from dataclasses import replace

import pytest

from services.infer.ports import (
    Delta,
    Finish,
    FinishReason,
    GenerateRequest,
    Role,
    Sampling,
    Task,
    TokenCounter,
    Usage,
    text_message,
)
from services.runtime.errors import RagmeshError
from tests.conftest import NOT_APPLICABLE
from tests.contract.infer.test_engines import CHAT, Harness

LONG = GenerateRequest(
    messages=(text_message(Role.USER, "word " * 3000),), sampling=Sampling(max_tokens=4)
)


async def test_a_prompt_past_the_context_is_refused_with_the_numbers(mesh: Harness) -> None:
    with pytest.raises(RagmeshError) as caught:
        await mesh.events(LONG)
    error = caught.value
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "CONTEXT_LENGTH_EXCEEDED")
    assert not error.spelling.retry_helps
    numbers = [int(number) for number in re.findall(r"\d+", error.message)]
    assert 512 in numbers
    assert max(numbers) > 512


async def test_tokens_are_counted_exactly(mesh: Harness) -> None:
    *_, finish, usage = await mesh.events(CHAT)
    assert isinstance(usage, Usage)
    assert isinstance(finish, Finish)
    assert finish.reason is FinishReason.STOP
    assert not usage.estimated
    assert usage.completion_tokens == 15  # with the end token; see the model's description
    assert isinstance(mesh.engine, TokenCounter)
    assert await mesh.engine.count_tokens(CHAT) == usage.prompt_tokens


async def test_a_limit_cuts_between_characters(mesh: Harness) -> None:
    """The model spells 日本語 in byte tokens, so some limit falls inside a character."""
    whole = mesh.rig.text
    assert whole is not None
    for limit in range(10, 15):
        sampling = Sampling(temperature=0.0, max_tokens=limit)
        events = await mesh.events(replace(CHAT, sampling=sampling))
        text = "".join(event.text for event in events if isinstance(event, Delta))
        assert whole.startswith(text.removesuffix("\ufffd"))
        assert FinishReason.LENGTH in [e.reason for e in events if isinstance(e, Finish)]


async def test_leaving_ends_the_work_and_the_next_caller_is_served(mesh: Harness) -> None:
    if not mesh.can.completions:
        pytest.skip(f"{NOT_APPLICABLE}{mesh.name} does not go on without an end")
    endless = GenerateRequest(
        task=Task.COMPLETE,
        text="once upon a time",
        sampling=Sampling(temperature=1.5, max_tokens=480, logit_bias={}),
        stream=True,
    )
    async with aclosing(mesh.stream(endless)) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    async with asyncio.timeout(30):
        assert await mesh.text(CHAT) == mesh.rig.text
