"""One timer a generation, instead of one an event."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from services.runtime.errors import DeadlineExceeded


class Deadline:
    """Ends a wait for an engine's event once a time has come.

        with Deadline(end) as deadline:
            deadline.begin()               # as often as there are events
            try:
                event = await anext(events)
            except asyncio.CancelledError:
                if deadline.struck(): ...  # the time has come; else somebody left
            deadline.finish()

    Between two waits the consumer works; a deadline that passes then ends the next wait. Unlike
    `asyncio.timeout` it may stay open across the yields of a generator (PEP 789), because it
    cancels its task inside a wait only.
    """

    __slots__ = ("_cancelling", "_end", "_handle", "_passed", "_task")

    def __init__(self, end: float) -> None:
        """Args:
        end: loop time.
        """
        self._end = end
        self._passed = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._handle: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._handle = asyncio.get_running_loop().call_at(self._end, self._strike)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def begin(self) -> None:
        """A wait begins.

        Raises:
            DeadlineExceeded: ENGINE_TIMEOUT, when the time has passed.
        """
        if self._passed:
            raise timeout()
        self._task = task = asyncio.current_task()
        if task is not None:
            self._cancelling = task.cancelling()

    def finish(self) -> None:
        """The wait is over."""
        self._task = None

    def struck(self) -> bool:
        """After a CancelledError in a wait: whether it was ours, and nobody else's too."""
        task, self._task = self._task, None
        return self._passed and task is not None and task.uncancel() <= self._cancelling

    def _strike(self) -> None:
        self._passed = True
        if self._task is not None:
            self._task.cancel()


@asynccontextmanager
async def within(end: float) -> AsyncIterator[None]:
    """Run a block without yields up to a loop time.

    Raises:
        DeadlineExceeded: ENGINE_TIMEOUT, when the time comes first.
    """
    limit = asyncio.timeout_at(end)
    try:
        async with limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise timeout() from None
        raise


def timeout() -> DeadlineExceeded:
    return DeadlineExceeded("ENGINE_TIMEOUT", "The engine did not answer in time.")
