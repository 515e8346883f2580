"""The thread behind engines that block: who leaves, who fails, and what closing ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest

from services.infer.adapters.threads import Stopped, Thread
from services.runtime.errors import RagmeshError
from tests.until import until


class Work:
    """A generation that says one thing and goes on until it is told to stop."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.stopped = threading.Event()

    def __call__(self, emit: Callable[[int], None], stopped: Stopped) -> None:
        emit(1)
        self.begun.set()
        while not stopped():
            self.stopped.wait(0.01)
        self.stopped.set()


async def collect(thread: Thread, work: Callable[..., None]) -> list[int]:
    async with aclosing(thread.stream(work)) as items:
        return [item async for item in items]


@pytest.fixture
async def thread() -> AsyncIterator[Thread]:
    made = Thread("test")
    yield made
    made.close()


async def test_a_caller_behind_a_long_generation_leaves_at_once_and_is_never_begun(thread):
    first, second = Work(), Work()
    running = asyncio.ensure_future(collect(thread, first))
    await until(first.begun.is_set)
    queued = asyncio.ensure_future(collect(thread, second))
    await asyncio.sleep(0)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    assert not first.stopped.is_set()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await thread.run(lambda: None)
    assert first.stopped.is_set()
    assert not second.begun.is_set()


async def test_a_call_whose_caller_left_before_its_turn_is_never_made(thread):
    """Or the probes of a model that takes long to load would each load it once more."""
    work = Work()
    made: list[int] = []
    running = asyncio.ensure_future(collect(thread, work))
    await until(work.begun.is_set)
    calls = [asyncio.ensure_future(thread.run(made.append, n)) for n in range(3)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await thread.run(lambda: None)
    assert made == []


async def test_closing_ends_what_runs_and_what_waits_with_an_error(thread):
    first, second = Work(), Work()
    callers = [asyncio.ensure_future(collect(thread, first))]
    await until(first.begun.is_set)
    callers.append(asyncio.ensure_future(collect(thread, second)))
    call = asyncio.ensure_future(thread.run(lambda: None))
    await asyncio.sleep(0)
    thread.close()
    async with asyncio.timeout(10):
        for outcome in await asyncio.gather(*callers, call, return_exceptions=True):
            assert isinstance(outcome, RagmeshError), repr(outcome)
            assert outcome.reason == "ENGINE_UNAVAILABLE"
    await until(first.stopped.is_set)
    assert not second.begun.is_set()


async def test_after_closing_nothing_begins(thread):
    thread.close()
    for work in (collect(thread, Work()), thread.run(lambda: None)):
        with pytest.raises(RagmeshError) as caught:
            await work
        assert caught.value.reason == "ENGINE_UNAVAILABLE"


async def test_what_the_work_raises_comes_after_what_it_said(thread):
    def work(emit: Callable[[int], None], _: Stopped) -> None:
        emit(1)
        raise ValueError("boom")

    seen = []
    with pytest.raises(ValueError, match="boom"):
        async with aclosing(thread.stream(work)) as items:
            async for item in items:
                seen.append(item)
    assert seen == [1]


def test_a_loop_that_closes_ends_the_work(recwarn):
    thread, work = Thread("test"), Work()

    async def begin() -> None:
        task = asyncio.ensure_future(collect(thread, work))
        await until(work.begun.is_set)
        task.cancel()  # as asyncio.run does with what is left; nobody awaits it

    asyncio.run(begin())
    assert work.stopped.wait(10)
    thread.close()
    assert not recwarn.list
