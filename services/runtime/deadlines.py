"""Deadlines: one budget per request, from which every hop gets what is left."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Protocol

from services.runtime.errors import DeadlineExceeded


class Budget:
    """The time a request may still take, in seconds, counted from its creation."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - self._clock())

    def hop(self, *, at_most: float | None = None, reserve: float = 0.0) -> float:
        """The timeout for the next hop, in seconds.

        Args:
            at_most: this hop's own ceiling.
            reserve: what later hops must keep.

        Raises:
            DeadlineExceeded: nothing is left to give.
        """
        left = self.remaining() - reserve
        if left <= 0:
            raise DeadlineExceeded("BUDGET_SPENT", "The time allowed for the request ran out.")
        return left if at_most is None else min(left, at_most)


class Timed(Protocol):
    """A gRPC servicer context, as far as deadlines go; `core` modules import this one, not grpc."""

    def time_remaining(self) -> float | None: ...


def time_remaining(context: Timed) -> float | None:
    """Seconds until the caller's deadline, or None when it set none."""
    return context.time_remaining()


_call: ContextVar[Budget | None] = ContextVar("ragmesh_call_budget", default=None)


def set_call_deadline(seconds: float | None) -> None:
    """Say when the running call's caller stops waiting (None: never), for `call_remaining`.

    Nothing resets it: each call runs in a task of its own. What the call starts and leaves behind
    belongs in an empty `contextvars.Context`.
    """
    _call.set(None if seconds is None else Budget(seconds))


def call_remaining() -> float | None:
    """Seconds that the running call's caller goes on waiting; None for ever, or outside a call."""
    budget = _call.get()
    return None if budget is None else budget.remaining()


@asynccontextmanager
async def within(seconds: float | None) -> AsyncIterator[None]:
    """Run the block in at most so many seconds (None: without limit).

    Raises:
        DeadlineExceeded: DEADLINE_EXCEEDED, when time runs out; the block is cancelled first.
    """
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            yield
    except TimeoutError:
        if not timer.expired():
            raise  # the block's own, not ours
        raise DeadlineExceeded("DEADLINE_EXCEEDED", "The time allowed ran out.") from None
