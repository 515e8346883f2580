"""A clock moved by hand, and a Redis of the test's own."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from gateway.limits.ledger import MemoryLedger
from gateway.limits.link import RedisLink
from gateway.limits.shared import CORRECT, RESTORE, TAKE, SharedLedger
from gateway.limits.streams import ENTER, LEAVE, RENEW
from tests.redis_server import RedisServer

NOON = 1_900_065_600.0
"""2030-03-18T12:00:00Z: a minute and an hour begin, a day does not."""
SCRIPTS = (TAKE, CORRECT, RESTORE, ENTER, RENEW, LEAVE)


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server: apt-get install redis-server")
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


Replica = tuple[SharedLedger, RedisLink]
MakeReplica = Callable[..., Awaitable[Replica]]


@pytest.fixture
async def replica(redis: RedisServer, clock: Clock) -> AsyncIterator[MakeReplica]:
    """Makes ledgers that share the test's Redis, each as a process of its own would."""
    links = []

    async def make(timeout: float = 5.0) -> Replica:
        link = RedisLink(redis.url, SCRIPTS, timeout=timeout)
        links.append(link)
        ledger = SharedLedger(link, MemoryLedger(), clock)
        await link.start()
        return ledger, link

    yield make
    for link in links:
        await link.aclose()


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], seconds: float = 15.0
) -> None:
    """Wait until a condition holds that another process, or task, brings about."""
    deadline = time.monotonic() + seconds
    while True:
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.02)
