"""While somebody searches, steps of ingest leave half of the processors alone."""

import asyncio

import pytest

from services.retrieve import turns as module
from services.retrieve.turns import Turns

STEPS = 6


async def most_at_once(turns: Turns, steps: int = STEPS) -> int:
    """How many of several steps were in their turn together."""
    inside = most = 0

    async def step() -> None:
        nonlocal inside, most
        async with turns.turn():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.001)
            inside -= 1

    await asyncio.gather(*(step() for _ in range(steps)))
    return most


async def test_nobody_waits_while_nobody_searches():
    assert await most_at_once(Turns(2)) == STEPS


@pytest.mark.parametrize(("processors", "together"), [(1, 1), (2, 1), (4, 2), (64, STEPS)])
async def test_half_of_the_processors_are_for_searches(processors, together):
    turns = Turns(processors)
    turns.searched()

    assert await most_at_once(turns) == together


async def test_a_moment_after_the_last_search_nobody_waits(monkeypatch):
    monkeypatch.setattr(module, "SEARCHED_SECONDS", 0.02)
    turns = Turns(2)
    turns.searched()
    await asyncio.sleep(0.03)

    assert await most_at_once(turns) == STEPS


async def test_a_step_that_is_cancelled_or_fails_gives_its_turn_back():
    turns = Turns(2)
    turns.searched()
    entered = asyncio.Event()

    async def hang() -> None:
        async with turns.turn():
            entered.set()
            await asyncio.Event().wait()

    hanging = asyncio.create_task(hang())
    await entered.wait()
    waiting = asyncio.create_task(hang())
    await asyncio.sleep(0)
    waiting.cancel()
    hanging.cancel()
    await asyncio.gather(hanging, waiting, return_exceptions=True)
    with pytest.raises(ValueError, match="broken"):
        async with turns.turn():
            raise ValueError("broken")

    async with asyncio.timeout(1):
        assert await most_at_once(turns) == 1
