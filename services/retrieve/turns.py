"""Steps of ingest take turns while somebody searches."""

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SEARCHED_SECONDS = 1.0
"""For so long after a search somebody is taken to search."""


class Turns:
    """Who may begin a step that keeps a processor busy.

    While nobody searches everybody may: the steps of a stream go on side by side. While somebody
    does, so many as leave half of the processors to searches. On two processors ingest then has
    three quarters of its speed, and one search of a hundred takes a fifth less time or more.

    Belongs to one event loop.
    """

    def __init__(self, processors: int | None = None) -> None:
        """Args:
        processors: of this machine, unless they are given.
        """
        self._turns = asyncio.Semaphore(max(1, (processors or os.cpu_count() or 1) // 2))
        self._searched = -math.inf

    def searched(self) -> None:
        """Take note of a search."""
        self._searched = time.monotonic()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, where one is needed, and have it until the end of the block."""
        if time.monotonic() - self._searched > SEARCHED_SECONDS:
            yield
            return
        async with self._turns:
            yield
