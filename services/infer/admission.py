"""How many generations run at once, how many wait, and what is shed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.runtime.errors import DeadlineExceeded, Unavailable

_RETRY_AFTER = 1.0


class Admission:
    """A limit of running generations with a bounded queue, first come first served."""

    def __init__(self, limit: int, queue: int) -> None:
        self._slots = asyncio.Semaphore(limit)
        self._queue = queue
        self.waiting = 0
        self.running = 0

    @asynccontextmanager
    async def slot(self, end: float) -> AsyncIterator[None]:
        """Hold a slot for the length of the block.

        Args:
            end: loop time until which a slot is of use.

        Raises:
            Unavailable: ENGINE_OVERLOADED, when the queue is full.
            DeadlineExceeded: ENGINE_TIMEOUT, when no slot came free until `end`.
        """
        if self._slots.locked() and self.waiting >= self._queue:
            raise Unavailable(
                "ENGINE_OVERLOADED",
                "Too many generations are waiting; try again shortly.",
                retry_after=_RETRY_AFTER,
            )
        self.waiting += 1
        try:
            async with asyncio.timeout_at(end):
                await self._slots.acquire()
        except TimeoutError:
            raise DeadlineExceeded("ENGINE_TIMEOUT", "The engine was busy for too long.") from None
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._slots.release()
