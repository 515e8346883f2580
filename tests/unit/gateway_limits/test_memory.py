"""Counters of one process."""

import asyncio
from datetime import UTC, datetime

import pytest

from gateway.limits.ledger import Charge, MemoryLedger
from gateway.limits.periods import Period
from tests.unit.gateway_limits.conftest import NOON, Clock


def at(*moment: int) -> float:
    return datetime(*moment, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        (Period.SECOND, (2028, 2, 29, 13, 14, 15), (2028, 2, 29, 13, 14, 16)),
        (Period.MINUTE, (2028, 2, 29, 13, 14), (2028, 2, 29, 13, 15)),
        (Period.HOUR, (2028, 2, 29, 13), (2028, 2, 29, 14)),
        (Period.DAY, (2028, 2, 29), (2028, 3, 1)),
        (Period.MONTH, (2028, 2, 1), (2028, 3, 1)),
        (Period.YEAR, (2028, 1, 1), (2029, 1, 1)),
    ],
)
def test_windows_are_calendar_windows(period, start, end):
    now = at(2028, 2, 29, 13, 14, 15) + 0.6
    assert period.start(now) == at(*start)
    assert period.end(now) == at(*end)


def test_reset_counts_whole_seconds_as_kong_does():
    assert Period.MINUTE.reset(NOON) == 60
    assert Period.MINUTE.reset(NOON + 0.9) == 60
    assert Period.MINUTE.reset(NOON + 59.9) == 1
    # Kong's month has 30 days: on the 31st it says 1.
    assert Period.MONTH.reset(at(2028, 1, 31, 5)) == 1


async def test_ten_thousand_calls_at_once_admit_exactly_the_limit():
    ledger = MemoryLedger()
    charges = [Charge("k", Period.MINUTE, 6_000), Charge("k", Period.HOUR, 9_000)]
    outcomes = await asyncio.gather(*(ledger.take(charges, NOON) for _ in range(10_000)))
    assert sum(outcome.admitted for outcome in outcomes) == 6_000


async def test_a_refused_call_counts_nowhere():
    ledger = MemoryLedger()
    both = [Charge("k", Period.MINUTE, 1), Charge("k", Period.HOUR, 100)]
    assert (await ledger.take(both, NOON)).admitted
    assert not (await ledger.take(both, NOON)).admitted
    assert [*ledger.counters(NOON)] == [("k", Period.MINUTE, 1), ("k", Period.HOUR, 1)]


async def test_a_window_rolls_over_at_the_calendar(clock: Clock):
    ledger = MemoryLedger()
    charge = [Charge("k", Period.MINUTE, 2)]
    clock.now = NOON + 59.999
    assert [(await ledger.take(charge, clock())).admitted for _ in range(3)] == [True, True, False]
    clock.now = NOON + 60
    assert (await ledger.take(charge, clock())).used == [0]
    # A clock that is set back finds the counts of the window it has seen.
    assert (await ledger.take(charge, NOON + 30)).used == [1]


async def test_counters_of_a_month_hold_through_its_31st():
    ledger = MemoryLedger()
    charge = [Charge("k", Period.MONTH, 1)]
    assert (await ledger.take(charge, at(2027, 1, 1))).admitted
    assert not (await ledger.take(charge, at(2027, 1, 31, 23, 59))).admitted
    assert (await ledger.take(charge, at(2027, 2, 1))).admitted
    assert (await ledger.take(charge, at(2027, 3, 1))).admitted


async def test_corrections(clock: Clock):
    ledger = MemoryLedger()
    taken = Charge("k", Period.MINUTE, 100, 60)
    await ledger.take([taken], NOON)
    ledger.correct(taken._replace(amount=-40), NOON, NOON + 10)
    assert [*ledger.counters(NOON + 10)] == [("k", Period.MINUTE, 20)]
    # Less than reserved, told in a later minute: that minute owes nothing.
    ledger.correct(taken._replace(amount=-10), NOON, NOON + 61)
    assert [*ledger.counters(NOON + 61)] == []
    # More than reserved: it counts now.
    ledger.correct(taken._replace(amount=7), NOON, NOON + 61)
    assert [*ledger.counters(NOON + 61)] == [("k", Period.MINUTE, 7)]


async def test_memory_is_bounded_within_a_window_and_across_windows():
    ledger = MemoryLedger(max_keys=1_000)
    for number in range(5_000):
        await ledger.take([Charge(f"ip:{number}", Period.MINUTE, 5)], NOON)
    assert len([*ledger.counters(NOON)]) == 1_000
    await ledger.take([Charge("ip:new", Period.MINUTE, 5)], NOON + 60)
    assert len([*ledger.counters(NOON + 60)]) == 1
