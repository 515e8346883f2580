"""Counters of calendar windows, in this process: exact, without waiting, bounded in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gateway.limits.periods import Period


class Charge(NamedTuple):
    """An amount to be counted under a key within the period's present window."""

    key: str
    period: Period
    limit: int
    amount: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of charges that were taken together."""

    admitted: bool
    used: Sequence[int]
    """By charge: what was counted before it."""


class Ledger(Protocol):
    """Counts charges against limits; all of a call's charges are taken, or none."""

    async def take(self, charges: Sequence[Charge], now: float) -> Outcome:
        """Count every charge if none goes over its limit. Never fails."""
        ...

    def correct(self, charge: Charge, taken_at: float, now: float) -> None:
        """Change what an admitted charge counted by ``charge.amount``, limit or not.

        A reduction belongs to the window in which the charge was taken, and is lost with it; an
        increase counts now, so that a long request cannot leave its excess in the past. Returns
        at once: it is called while a request is being cancelled.
        """
        ...


class _Window:
    """The counters of one period's present window. Windows are aligned, so all end together and
    the next one starts with an empty table: there is nothing to sweep."""

    __slots__ = ("counts", "end")

    def __init__(self) -> None:
        self.end = 0
        self.counts: dict[str, int] = {}


class MemoryLedger:
    """Counters of this process. Nothing awaits between looking and counting, so it is exact."""

    def __init__(self, max_keys: int = 100_000) -> None:
        """Args:
        max_keys: most counters kept for a period; past it the oldest is forgotten, so that
            callers from ever new addresses cannot fill the memory.
        """
        self._windows = {period: _Window() for period in Period}
        self._max_keys = max_keys

    async def take(self, charges: Sequence[Charge], now: float) -> Outcome:
        return self.take_now(charges, now)

    def take_now(self, charges: Sequence[Charge], now: float) -> Outcome:
        used = []
        admitted = True
        for key, period, limit, amount in charges:
            count = self._counts(period, now).get(key, 0)
            used.append(count)
            if count + amount > limit:
                admitted = False
        if admitted:
            for key, period, _, amount in charges:
                self._add(key, period, amount, now)
        return Outcome(admitted, used)

    def correct(self, charge: Charge, taken_at: float, now: float) -> None:
        key, period, _, amount = charge
        if amount >= 0 or period.start(taken_at) == period.start(now):
            self._add(key, period, amount, now)

    def note(self, key: str, period: Period, count: int, now: float) -> None:
        """Replace a counter by what is known from elsewhere."""
        counts = self._counts(period, now)
        self._make_room(counts, key)
        counts[key] = count

    def counters(self, now: float) -> Iterator[tuple[str, Period, int]]:
        """Every counter of a present window."""
        for period in Period:
            for key, count in tuple(self._counts(period, now).items()):
                yield key, period, count

    def _add(self, key: str, period: Period, amount: int, now: float) -> None:
        counts = self._counts(period, now)
        if key not in counts:
            self._make_room(counts, key)
        counts[key] = max(0, counts.get(key, 0) + amount)

    def _make_room(self, counts: dict[str, int], key: str) -> None:
        if key not in counts and len(counts) >= self._max_keys:
            del counts[next(iter(counts))]

    def _counts(self, period: Period, now: float) -> dict[str, int]:
        window = self._windows[period]
        # A clock that is set back stays in the window it has seen: old counts hold on.
        if now >= window.end:
            window.end = period.end(now)
            window.counts = {}
        return window.counts
