"""Tokens: reserved, settled, told."""

import asyncio
import random

import pytest

from gateway.limits.ledger import MemoryLedger
from gateway.limits.periods import Period
from gateway.limits.tokens import (
    TokenLimit,
    TokenMeter,
    TokensExceeded,
    estimate_tokens,
)
from services.runtime.errors import InvalidArgument, Unavailable
from tests.unit.gateway_limits.conftest import NOON, Clock


def meter(clock: Clock, *, minute: int = 1000, day: int | None = None, default: int = 100):
    ledger = MemoryLedger()
    limits = [TokenLimit(Period.MINUTE, minute)]
    if day is not None:
        limits.append(TokenLimit(Period.DAY, day))
    return TokenMeter(ledger, limits, default_output=default, now=clock), ledger


def used(ledger: MemoryLedger, clock: Clock) -> int:
    return {period: count for _, period, count in ledger.counters(clock())}[Period.MINUTE]


async def test_a_reservation_holds_prompt_and_output_until_it_is_settled(clock: Clock):
    tokens, ledger = meter(clock)
    with await tokens.reserve("t", 40, 200) as held:
        assert used(ledger, clock) == 240
        assert held.max_output == 200
        assert held.headers == {
            "x-ratelimit-limit-tokens": "1000",
            "x-ratelimit-remaining-tokens": "760",
            "x-ratelimit-reset-tokens": "1m",
        }
        held.report(55)
    assert used(ledger, clock) == 55
    assert held.headers["x-ratelimit-remaining-tokens"] == "945"


async def test_usage_of_several_calls_adds_up(clock: Clock):
    tokens, ledger = meter(clock)
    with await tokens.reserve("t", 40, 200) as held:
        held.report(30)
        held.report(12)
    assert used(ledger, clock) == 42


async def test_a_cancelled_stream_settles_with_what_was_seen(clock: Clock):
    tokens, ledger = meter(clock)
    started = asyncio.Event()

    async def stream() -> None:
        with await tokens.reserve("t", 40, 200) as held:
            held.saw(3)
            held.saw(4)
            started.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(stream())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert used(ledger, clock) == 47


async def test_a_caller_who_leaves_early_pays_for_the_prompt(clock: Clock):
    tokens, ledger = meter(clock)
    with pytest.raises(asyncio.CancelledError), await tokens.reserve("t", 40, 200):
        raise asyncio.CancelledError
    assert used(ledger, clock) == 40


async def test_a_failure_without_output_costs_nothing(clock: Clock):
    tokens, ledger = meter(clock)
    with pytest.raises(Unavailable), await tokens.reserve("t", 40, 200):
        raise Unavailable("DOWN", "no engine")
    assert used(ledger, clock) == 0
    with pytest.raises(Unavailable), await tokens.reserve("t", 40, 200) as held:
        held.saw(5)
        raise Unavailable("DOWN", "the engine went away")
    assert used(ledger, clock) == 45


async def test_the_refusal_tells_when_and_how_much(clock: Clock):
    tokens, _ = meter(clock, minute=300, day=10_000)
    await tokens.reserve("t", 100, 150)
    clock.now = NOON + 12.5
    with pytest.raises(TokensExceeded) as refused:
        await tokens.reserve("t", 40, 20)
    assert refused.value.reason == "TOKEN_LIMIT_EXCEEDED"
    assert refused.value.retry_after == 47.5
    assert refused.value.headers == {
        "x-ratelimit-limit-tokens": "300",
        "x-ratelimit-remaining-tokens": "50",
        "x-ratelimit-reset-tokens": "48s",
    }
    await tokens.reserve("another", 40, 20)
    clock.now = NOON + 60
    await tokens.reserve("t", 40, 20)


async def test_the_day_binds_when_it_has_less_left(clock: Clock):
    tokens, _ = meter(clock, minute=300, day=550)
    await tokens.reserve("t", 100, 100)
    clock.now = NOON + 60
    held = await tokens.reserve("t", 100, 100)
    assert held.headers["x-ratelimit-limit-tokens"] == "300"
    clock.now = NOON + 120
    with pytest.raises(TokensExceeded) as refused:
        await tokens.reserve("t", 100, 100)
    assert refused.value.headers["x-ratelimit-limit-tokens"] == "550"
    assert refused.value.headers["x-ratelimit-reset-tokens"] == "11h58m"


async def test_what_can_never_fit_is_no_matter_of_time(clock: Clock):
    tokens, _ = meter(clock, minute=300)
    with pytest.raises(InvalidArgument) as refused:
        await tokens.reserve("t", 100, 201)
    assert refused.value.reason == "TOKEN_LIMIT_TOO_SMALL"
    assert refused.value.field == "max_tokens"
    with pytest.raises(InvalidArgument):
        await tokens.reserve("t", 300, None)


async def test_without_a_maximum_the_default_is_reserved_as_far_as_it_can_fit(clock: Clock):
    tokens, _ = meter(clock, minute=300, default=1000)
    assert (await tokens.reserve("t", 100, None)).max_output == 200


async def test_without_limits_nothing_is_held(clock: Clock):
    tokens = TokenMeter(MemoryLedger(), [], default_output=100, now=clock)
    with await tokens.reserve("t", 10**9, None) as held:
        assert held.max_output is None
        assert held.headers == {}


async def test_the_excess_of_a_long_answer_counts_when_it_is_known(clock: Clock):
    tokens, ledger = meter(clock)
    with await tokens.reserve("t", 40, 60) as held:
        clock.now = NOON + 90
        await tokens.reserve("t", 1, 1)
        held.report(130)
    assert used(ledger, clock) == 32, "what went beyond the reservation; the rest was last minute's"


async def test_overshoot_is_at_most_what_one_request_used_beyond_its_estimate(clock: Clock):
    """One request at a time, each using up to three times its estimate."""
    tokens, _ = meter(clock, minute=10_000)
    dice = random.Random(7)
    total = largest = 0
    for _ in range(1000):
        try:
            with await tokens.reserve("t", 50, 100) as held:
                actual = dice.randrange(10, 450)
                held.report(actual)
        except TokensExceeded:
            continue
        total += actual
        largest = max(largest, actual)
    assert 9_000 < total <= 10_000 + largest


async def test_enforced_maxima_never_overshoot_whatever_the_concurrency(clock: Clock):
    tokens, _ = meter(clock, minute=10_000)
    dice = random.Random(7)
    total = 0

    async def caller() -> None:
        nonlocal total
        for _ in range(100):
            prompt, wanted = dice.randrange(1, 80), dice.randrange(1, 300)
            try:
                with await tokens.reserve("t", prompt, wanted) as held:
                    await asyncio.sleep(dice.random() / 100)
                    actual = prompt + dice.randrange(wanted + 1)
                    held.report(actual)
            except TokensExceeded:
                continue
            total += actual

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(caller())
    assert 9_000 < total <= 10_000


def test_estimates():
    assert estimate_tokens("") == 0
    assert estimate_tokens("The quick brown fox jumps over the lazy dog.") == 15
    assert estimate_tokens("日本語の文章です。") == 9
    assert estimate_tokens("Größe") == 3
    assert estimate_tokens("\ud800") == 1
