"""Budgets and time limits."""

import asyncio

import pytest

from services.runtime.deadlines import Budget, within
from services.runtime.errors import DeadlineExceeded


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_budget_shrinks_and_never_goes_below_nothing() -> None:
    clock = Clock()
    budget = Budget(10, clock=clock)
    assert budget.remaining() == 10
    clock.now += 4
    assert budget.remaining() == 6
    clock.now += 40
    assert budget.remaining() == 0


def test_a_hop_gets_what_is_left_up_to_its_ceiling() -> None:
    clock = Clock()
    budget = Budget(10, clock=clock)
    assert budget.hop() == 10
    assert budget.hop(at_most=3) == 3
    assert budget.hop(reserve=4) == 6
    clock.now += 7
    assert budget.hop(at_most=5) == 3
    with pytest.raises(DeadlineExceeded, match="BUDGET_SPENT"):
        budget.hop(reserve=4)


async def test_within_ends_the_block() -> None:
    ended = []
    with pytest.raises(DeadlineExceeded):
        async with within(0.01):
            try:
                await asyncio.sleep(10)
            finally:
                ended.append(True)
    assert ended == [True]


async def test_within_lets_other_timeouts_and_no_limit_through() -> None:
    with pytest.raises(TimeoutError):
        async with within(10):
            raise TimeoutError
    async with within(None):
        await asyncio.sleep(0)
