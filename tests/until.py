"""Waiting in tests for what lies in another task, thread or process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    """Return once the condition holds. The time is a bound for a test that fails, not a measure."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing there could set an event
            await asyncio.sleep(0.01)


def until_sync(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    """The same where there is no event loop."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)
