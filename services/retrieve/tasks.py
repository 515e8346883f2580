"""Coroutines side by side."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def together(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run them side by side; the first that fails ends the others, and its error is raised.

    Unlike ``gather`` it leaves nothing running, unlike a bare ``TaskGroup`` it raises no group.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
