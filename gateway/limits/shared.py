"""Counters that replicas share in Redis.

Without Redis a process goes on by itself, from the last shared counts it saw. When Redis is back,
each process brings what it counted alone; a Redis that lost its data gets the last known counts
too. So over an outage a limit is exceeded by at most what was left of it, once per further
process, and never resets to nothing.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from gateway.limits.ledger import Charge, MemoryLedger, Outcome
from gateway.limits.link import RedisLink, Script, Unshared
from gateway.limits.periods import Period

PREFIX = "ragmesh:limit:"
SLACK_MS = 10_000
"""Milliseconds that a counter outlives its window, for processes whose clocks are behind."""

TAKE = Script(
    """
    local used, fits = {}, 1
    for i, key in ipairs(KEYS) do
      used[i] = tonumber(redis.call('GET', key) or '0')
      if used[i] + tonumber(ARGV[3 * i - 1]) > tonumber(ARGV[3 * i - 2]) then fits = 0 end
    end
    if fits == 1 then
      for i, key in ipairs(KEYS) do
        redis.call('INCRBY', key, ARGV[3 * i - 1])
        if used[i] == 0 then redis.call('PEXPIRE', key, ARGV[3 * i]) end
      end
    end
    return {fits, unpack(used)}
    """
)
"""KEYS: counters. ARGV by counter: limit, amount, milliseconds to live."""

CORRECT = Script(
    """
    local amount = tonumber(ARGV[1])
    local count = redis.call('GET', KEYS[1])
    if not count and amount < 0 then return 0 end
    count = math.max(0, tonumber(count or '0') + amount)
    redis.call('SET', KEYS[1], count, 'PX', ARGV[2])
    return count
    """
)
"""KEYS: a counter. ARGV: amount, milliseconds to live."""

RESTORE = Script(
    """
    local count = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[1]))
    redis.call('SET', KEYS[1], math.max(0, count + tonumber(ARGV[2])), 'PX', ARGV[3])
    return 1
    """
)
"""KEYS: a counter. ARGV: last shared count known, what was counted since, milliseconds to live."""


class SharedLedger:
    """Counts in Redis, and mirrors the counts it sees in a ledger of this process."""

    def __init__(self, link: RedisLink, local: MemoryLedger, now: Callable[[], float]) -> None:
        self._link = link
        self._local = local
        self._now = now
        self._known: dict[tuple[str, Period], int] = {}
        """Shared counts when Redis was lost."""
        link.on_lost.append(self._remember)
        link.on_found.append(self._restore)

    async def take(self, charges: Sequence[Charge], now: float) -> Outcome:
        if not self._link.up or not charges:
            return self._local.take_now(charges, now)
        keys = [_name(charge.key, charge.period, now) for charge in charges]
        args = [
            part
            for charge in charges
            for part in (charge.limit, charge.amount, _lifetime(charge.period, now))
        ]
        answer = self._link.send(TAKE, keys, args)
        try:
            fits, *used = await asyncio.shield(answer)
        except Unshared:
            return self._local.take_now(charges, now)
        except asyncio.CancelledError:
            answer.add_done_callback(lambda done: self._give_back(done, charges, now))
            raise
        for charge, count in zip(charges, used, strict=True):
            if charge.period.start(now) != charge.period.start(self._now()):
                continue  # the answer tells of a window that ended meanwhile
            counted = count + charge.amount if fits else count
            self._local.note(charge.key, charge.period, counted, now)
        return Outcome(bool(fits), used)

    def correct(self, charge: Charge, taken_at: float, now: float) -> None:
        self._local.correct(charge, taken_at, now)
        at = now if charge.amount >= 0 else taken_at
        left = _lifetime(charge.period, at) - int((now - at) * 1000)
        if left > 0:
            keys = [_name(charge.key, charge.period, at)]
            self._link.post(CORRECT, keys, [charge.amount, left])

    def _give_back(
        self, answer: asyncio.Future[Any], charges: Sequence[Charge], taken_at: float
    ) -> None:
        """Nobody waits for the answer any more: what it took, nobody uses."""
        if answer.cancelled() or answer.exception() is not None or not answer.result()[0]:
            return
        for charge in charges:
            self.correct(charge._replace(amount=-charge.amount), taken_at, self._now())

    def _remember(self) -> None:
        counters = self._local.counters(self._now())
        self._known = {(key, period): count for key, period, count in counters}

    async def _restore(self) -> None:
        now = self._now()
        calls = []
        for key, period, count in self._local.counters(now):
            known = self._known.get((key, period), 0)
            calls.append(
                ([_name(key, period, now)], [known, count - known, _lifetime(period, now)])
            )
        await self._link.run_directly(RESTORE, calls)
        self._known = {}


def _name(key: str, period: Period, now: float) -> str:
    return f"{PREFIX}{key}:{period.name.lower()}:{period.start(now)}"


def _lifetime(period: Period, now: float) -> int:
    """Milliseconds until a window's counter may go."""
    return int(period.remaining(now) * 1000) + SLACK_MS
