"""The gateway's clock is the world's: tests that count within a minute stay inside one."""

import asyncio
import time


async def early_in_the_minute(seconds: float = 20.0) -> None:
    """Return with at least `seconds` left of the present minute."""
    left = 60 - time.time() % 60
    if left < seconds:
        await asyncio.sleep(left)
