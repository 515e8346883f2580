"""What a request's answer tells of limits."""

import asyncio

import pytest

from gateway.errors import error_headers, error_object
from gateway.limits.ledger import Charge, MemoryLedger
from gateway.limits.periods import Period
from gateway.limits.requests import FREE, Bound, admit
from services.runtime.errors import ResourceExhausted
from tests.unit.gateway_limits.conftest import NOON


def bounds(minute: int, hour: int, **more) -> list[Bound]:
    return [
        Bound(Charge("k", Period.MINUTE, minute), **more),
        Bound(Charge("k", Period.HOUR, hour), **more),
    ]


async def test_headers_are_kongs():
    ledger = MemoryLedger()
    admission = await admit(ledger, bounds(10, 100), NOON + 13.2)
    assert admission.refusal is None
    assert admission.headers == {
        "ratelimit-limit": "10",
        "ratelimit-remaining": "9",
        "ratelimit-reset": "47",
        "x-ratelimit-limit-minute": "10",
        "x-ratelimit-remaining-minute": "9",
        "x-ratelimit-limit-hour": "100",
        "x-ratelimit-remaining-hour": "99",
    }


async def test_of_two_windows_with_as_little_left_the_longer_one_is_told():
    ledger = MemoryLedger()
    admission = await admit(ledger, bounds(5, 5), NOON + 1)
    assert admission.headers["ratelimit-reset"] == "3599"


async def test_the_refusal_is_an_openai_error_with_the_time_to_wait():
    ledger = MemoryLedger()
    await admit(ledger, bounds(1, 100), NOON + 20)
    admission = await admit(ledger, bounds(1, 100), NOON + 20.5)
    # The hour did not count the refused request, and the minute is named by retry-after.
    assert admission.headers["x-ratelimit-remaining-hour"] == "99"
    assert admission.headers["ratelimit-remaining"] == "0"
    assert admission.headers["ratelimit-reset"] == "40"
    with pytest.raises(ResourceExhausted) as refused:
        admission.check()
    assert error_object(refused.value) == {
        "error": {
            "message": "API rate limit exceeded",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    }
    headers = error_headers(refused.value)
    assert headers["retry-after"] == "40"
    assert headers["retry-after-ms"] == "40000"


async def test_hidden_limits_refuse_without_headers():
    ledger = MemoryLedger()
    assert (await admit(ledger, bounds(1, 100, shown=False), NOON)).headers == {}
    admission = await admit(ledger, bounds(1, 100, shown=False), NOON)
    assert admission.headers == {}
    assert admission.refusal is not None
    assert admission.refusal.retry_after == 60


async def test_edge_and_tenant_are_taken_together_and_the_tighter_is_told():
    ledger = MemoryLedger()
    both = [
        Bound(Charge("edge", Period.MINUTE, 100), kind="edge"),
        Bound(Charge("tenant", Period.MINUTE, 3)),
    ]
    admissions = await asyncio.gather(*(admit(ledger, both, NOON) for _ in range(10)))
    assert [admission.headers["x-ratelimit-limit-minute"] for admission in admissions] == ["3"] * 10
    assert [bool(admission.refusal) for admission in admissions] == [False] * 3 + [True] * 7
    assert admissions[-1].refused_by == "tenant"
    assert ("edge", Period.MINUTE, 3) in [*ledger.counters(NOON)]


async def test_no_bound_costs_nothing():
    assert await admit(MemoryLedger(), [], NOON) is FREE
