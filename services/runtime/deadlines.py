"""Deadlines: one budget per request, from which every hop gets what is left."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
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
