"""Counters that replicas share, and life without Redis."""

import asyncio
import json
import logging
import signal
import subprocess
import sys
import time

import pytest

from gateway.limits.ledger import Charge, MemoryLedger
from gateway.limits.link import SHARED, RedisLink
from gateway.limits.periods import Period
from gateway.limits.shared import SharedLedger
from gateway.limits.tokens import TokenLimit, TokenMeter, TokensExceeded
from services.runtime.errors import FailedPrecondition
from tests.conftest import REPOSITORY
from tests.redis_server import RedisServer
from tests.unit.gateway_limits.conftest import (
    NOON,
    SCRIPTS,
    Clock,
    MakeReplica,
    eventually,
)

PROCESS = """
import asyncio, json, sys
from gateway.limits.ledger import Charge, MemoryLedger
from gateway.limits.link import RedisLink
from gateway.limits.periods import Period
from gateway.limits.shared import CORRECT, RESTORE, TAKE, SharedLedger

async def main(url, now, calls, limit):
    link = RedisLink(url, [TAKE, CORRECT, RESTORE], timeout=20)
    ledger = SharedLedger(link, MemoryLedger(), lambda: now)
    await link.start()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    charges = [Charge("t", Period.MINUTE, limit), Charge("t", Period.HOUR, 10 * limit)]
    outcomes = await asyncio.gather(*(ledger.take(charges, now) for _ in range(calls)))
    print(json.dumps([sum(outcome.admitted for outcome in outcomes), link.up]), flush=True)
    await link.aclose()

asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
"""


def test_ten_thousand_calls_of_two_processes_admit_exactly_the_limit(redis: RedisServer):
    command = [sys.executable, "-c", PROCESS, redis.url, str(NOON), "5000", "6000"]
    processes = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    # Both start when both are ready.
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    admitted = []
    for process in processes:
        told, _ = process.communicate(timeout=60)
        count, up = json.loads(told)
        assert up, "Redis was lost on the way; the count proves nothing"
        admitted.append(count)
    assert sum(admitted) == 6_000
    assert min(admitted) > 0


async def test_windows_roll_over_and_counters_expire(
    replica: MakeReplica, redis: RedisServer, clock: Clock
):
    ledger, link = await replica()
    charge = [Charge("k", Period.MINUTE, 1)]
    clock.now = NOON + 59
    assert (await ledger.take(charge, clock())).admitted
    assert not (await ledger.take(charge, clock())).admitted
    clock.now = NOON + 60
    assert (await ledger.take(charge, clock())).admitted
    keys = await link._redis.keys("ragmesh:limit:k:*")
    assert len(keys) == 2
    lives = sorted([await link._redis.pttl(key) for key in keys])
    # What is left of the window, and ten seconds for clocks that are behind.
    assert 0 < lives[0] <= 11_000
    assert 60_000 < lives[1] <= 70_000


async def test_corrections_are_shared(replica: MakeReplica, clock: Clock):
    (one, _), (two, _) = await replica(), await replica()
    taken = Charge("k", Period.MINUTE, 100, 80)
    assert (await one.take([taken], NOON)).admitted
    assert not (await two.take([taken], NOON)).admitted
    one.correct(taken._replace(amount=-70), NOON, NOON)
    # One connection, one order: what comes after the correction sees it.
    assert (await one.take([taken._replace(amount=1)], NOON)).used == [10]
    assert (await two.take([taken], NOON)).used == [11]


async def test_a_cancelled_take_is_given_back(replica: MakeReplica):
    ledger, _ = await replica()
    charge = Charge("k", Period.MINUTE, 100, 60)
    taking = asyncio.create_task(ledger.take([charge], NOON))
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking

    async def nothing_is_used() -> bool:
        return list((await ledger.take([charge._replace(amount=0)], NOON)).used) == [0]

    await eventually(nothing_is_used)


async def test_tokens_of_two_replicas_overshoot_by_at_most_one_request_each(
    replica: MakeReplica, clock: Clock
):
    """Each replica runs one request at a time, each using more than it reserved."""
    meters = [
        TokenMeter(
            (await replica())[0], [TokenLimit(Period.MINUTE, 5_000)], default_output=50, now=clock
        )
        for _ in range(2)
    ]
    total = 0

    async def run(meter: TokenMeter) -> None:
        nonlocal total
        for _ in range(300):
            try:
                with await meter.reserve("t", 20, 30) as held:
                    await asyncio.sleep(0)
                    held.report(130)
                    total += 130
            except TokensExceeded:
                continue

    await asyncio.gather(*(run(meter) for meter in meters))
    assert 5_000 - 130 <= total <= 5_000 + 2 * 130


async def test_redis_killed_midway_is_no_outage_and_no_reset(
    replica: MakeReplica, redis: RedisServer, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "gateway.limits")
    (one, link), (two, other) = await replica(), await replica()
    charge = [Charge("k", Period.HOUR, 100)]

    async def take(ledger: SharedLedger, calls: int) -> int:
        outcomes = await asyncio.gather(*(ledger.take(charge, NOON) for _ in range(calls)))
        return sum(outcome.admitted for outcome in outcomes)

    assert await take(one, 40) == 40
    assert await take(two, 30) == 30
    assert await take(one, 1) == 1  # so that it has seen what the other counted
    redis.kill()
    # Each goes on by itself from the last shared count it saw: 71 and 70.
    assert await take(one, 100) == 29
    assert await take(two, 10) == 10
    assert not link.up
    assert SHARED._value.get() == 0
    redis.start()  # empty: it kept nothing
    await eventually(lambda: link.up and other.up)
    assert SHARED._value.get() == 1
    # 71 at most were known, 29 and 10 came in the meantime: the hour is used up for both.
    assert await take(one, 10) == 0
    assert await take(two, 10) == 0
    told = [record.getMessage() for record in caplog.records]
    assert sum("is lost" in message for message in told) == 2, "once for each process"
    assert sum("are shared" in message for message in told) == 4, "at start, and again"


async def test_a_hanging_redis_costs_one_timeout_not_one_a_request(
    replica: MakeReplica, redis: RedisServer
):
    ledger, link = await replica(timeout=0.05)
    charge = [Charge("k", Period.HOUR, 1000)]
    assert (await ledger.take(charge, NOON)).admitted
    assert redis.process is not None
    redis.process.send_signal(signal.SIGSTOP)
    try:
        started = time.perf_counter()
        outcomes = await asyncio.gather(*(ledger.take(charge, NOON) for _ in range(500)))
        assert time.perf_counter() - started < 1
        assert all(outcome.admitted for outcome in outcomes)
        assert not link.up
        started = time.perf_counter()
        for _ in range(200):
            await ledger.take(charge, NOON)
        assert time.perf_counter() - started < 0.1, "while it hangs nobody waits for it"
    finally:
        redis.process.send_signal(signal.SIGCONT)
    await eventually(lambda: link.up)
    # Calls that hung may have been counted besides; none was forgotten.
    assert (await ledger.take(charge, NOON)).used[0] >= 701


async def test_a_redis_that_is_absent_at_start_is_found_later(redis: RedisServer, clock: Clock):
    redis.kill()
    link = RedisLink(redis.url, SCRIPTS, timeout=5)
    ledger = SharedLedger(link, MemoryLedger(), clock)
    await link.start()
    assert not link.up
    charge = [Charge("k", Period.HOUR, 10)]
    assert (await ledger.take(charge, NOON)).admitted
    redis.start()
    await eventually(lambda: link.up)
    assert (await ledger.take(charge, NOON)).used == [1], "what was counted alone came along"
    await link.aclose()


async def test_scripts_are_loaded_again_when_redis_forgot_them(replica: MakeReplica):
    ledger, link = await replica()
    await link._redis.script_flush()
    charge = [Charge("k", Period.HOUR, 2)]
    outcomes = await asyncio.gather(*(ledger.take(charge, NOON) for _ in range(5)))
    assert [outcome.admitted for outcome in outcomes].count(True) == 2
    assert link.up


async def test_a_redis_that_refuses_to_write_counts_as_lost(replica: MakeReplica):
    ledger, link = await replica()
    await link._redis.config_set("maxmemory", "1")
    charge = [Charge("k", Period.HOUR, 2)]
    outcomes = [await ledger.take(charge, NOON) for _ in range(3)]
    assert [outcome.admitted for outcome in outcomes] == [True, True, False]
    assert not link.up
    await link._redis.config_set("maxmemory", "0")
    await eventually(lambda: link.up)


@pytest.mark.parametrize("url", ["localhost:6379", "http://127.0.0.1/0", "redis://127.0.0.1:x/0"])
def test_a_url_that_is_none_stops_the_start(url):
    with pytest.raises(FailedPrecondition) as refused:
        RedisLink(url, SCRIPTS, timeout=1)
    assert refused.value.reason == "REDIS_URL_INVALID"
