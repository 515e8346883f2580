"""The connection to Redis that limits use: batched, bounded in time, never an outage.

Calls that come while one batch is under way leave together in the next, over one connection. When
Redis fails or is late, the batch and all that waits are told `Unshared` at once and the link is
down: nobody asks Redis any more but a probe in the background, so a hanging Redis costs one
timeout, not one per request.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from prometheus_client import Counter, Gauge
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from services.runtime.errors import FailedPrecondition

log = logging.getLogger(__name__)

SHARED = Gauge(
    "ragmesh_gateway_limits_shared",
    "1 while limits are shared over Redis, 0 while this process counts for itself.",
)
LOSSES = Counter("ragmesh_gateway_limits_redis_losses", "Times that Redis was lost to the limits.")

BATCH = 256
"""Most calls a batch."""
MAX_POSTED = 10_000
"""Most calls without an answer that may wait; past it they are dropped."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two probes; doubled each time."""
STEADY_SECONDS = 5.0
"""A link that held so long starts again at the first pause; one that flaps is probed rarely."""


class Unshared(Exception):
    """Redis does not answer now; the caller counts for itself."""


class Script:
    """A Lua script, known to Redis by its digest."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = ""


class _Call:
    __slots__ = ("answer", "args", "keys", "script")

    def __init__(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[int | str],
        answer: asyncio.Future[Any] | None,
    ) -> None:
        self.script = script
        self.keys = keys
        self.args = args
        self.answer = answer


class RedisLink:
    """Runs scripts while Redis answers, and says so when it does not."""

    def __init__(self, url: str, scripts: Sequence[Script], *, timeout: float) -> None:
        """Args:
        timeout: seconds that a batch may take, connecting included.

        Raises:
            FailedPrecondition: REDIS_URL_INVALID.
        """
        try:
            self._redis = Redis.from_url(
                url,
                socket_timeout=None,  # a batch is bounded as a whole, by asyncio
                socket_connect_timeout=None,
                # Once, at once: an idle connection may have been closed since it was last used.
                retry=Retry(NoBackoff(), 1),
                max_connections=4,  # one is used, others may be closing
            )
        except ValueError as error:
            raise FailedPrecondition(
                "REDIS_URL_INVALID",
                "REDIS_URL must look like redis://user:password@host:6379/0, rediss://... or "
                "unix:///path.",
            ) from error
        self._scripts = scripts
        self._timeout = timeout
        self._waiting: deque[_Call] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._sender: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None
        self._pause = FIRST_PAUSE
        self._up_since = 0.0
        self.up = False
        """Whether calls are sent; at first not, until a probe got through."""
        self.on_lost: list[Callable[[], None]] = []
        self.on_found: list[Callable[[], Awaitable[None]]] = []
        """Awaited before the link is up again: their own calls use `run_directly`."""

    async def start(self) -> None:
        """Try to reach Redis; without it go on trying in the background."""
        if self._sender is not None:
            return
        self._sender = asyncio.create_task(self._send_batches(), name="limits-sender")
        try:
            await self._come_up()
        except Exception as error:
            self._log_loss(error)
            self._start_probe()

    async def aclose(self) -> None:
        """Send what was posted, if that takes no time, and disconnect."""
        if self.up:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout):
                    await self._idle.wait()
        self.up = False
        for task in (self._sender, self._probe):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        self._fail(tuple(self._waiting))
        self._waiting.clear()
        await self._redis.aclose()

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[int | str]) -> Any:
        """A script's answer.

        Raises:
            Unshared: Redis does not answer; whether the script ran is then not known.
        """
        return await self.send(script, keys, args)

    def send(
        self, script: Script, keys: Sequence[str], args: Sequence[int | str]
    ) -> asyncio.Future[Any]:
        """As `run`, with the answer to come."""
        if not self.up:
            raise Unshared
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._add(_Call(script, keys, args, answer))
        return answer

    def post(self, script: Script, keys: Sequence[str], args: Sequence[int | str]) -> None:
        """Run a script soon, its answer unseen; does nothing while the link is down."""
        if self.up and len(self._waiting) < MAX_POSTED:
            self._add(_Call(script, keys, args, None))

    async def run_directly(
        self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[int | str]]]
    ) -> None:
        """Run a script for each of `calls`, also while the link is down; raises what failed."""
        for first in range(0, len(calls), BATCH):
            batch = [_Call(script, keys, args, None) for keys, args in calls[first : first + BATCH]]
            async with asyncio.timeout(max(1.0, self._timeout)):
                for answer in await self._execute(batch):
                    if isinstance(answer, Exception):
                        raise answer

    def _add(self, call: _Call) -> None:
        self._waiting.append(call)
        self._idle.clear()
        self._wake.set()

    async def _send_batches(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting and self.up:
                size = min(BATCH, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(size)]
                try:
                    async with asyncio.timeout(self._timeout):
                        answers = await self._execute(batch)
                except Exception as error:
                    # Whatever the client library raises, requests go on without it.
                    self._lose(error, batch)
                except asyncio.CancelledError:
                    self._fail(batch)
                    raise
                else:
                    self._deliver(batch, answers)
            self._idle.set()

    def _deliver(self, batch: Sequence[_Call], answers: Sequence[Any]) -> None:
        for call, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                # A Redis that answers with errors (read-only, out of memory) is of no use either.
                self._lose(answer, batch)
                return
            if call.answer is not None and not call.answer.done():
                call.answer.set_result(answer)

    async def _execute(self, batch: Sequence[_Call]) -> list[Any]:
        answers = await self._pipeline(batch)
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:  # Redis was emptied or restarted since the scripts were loaded
            await self._load()
            for at, answer in zip(
                unknown, await self._pipeline([batch[at] for at in unknown]), strict=True
            ):
                answers[at] = answer
        return answers

    async def _pipeline(self, batch: Sequence[_Call]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for call in batch:
                pipeline.evalsha(call.script.sha, len(call.keys), *call.keys, *call.args)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
            return answers

    async def _load(self) -> None:
        for script in self._scripts:
            script.sha = await self._redis.script_load(script.text)

    async def _come_up(self) -> None:
        async with asyncio.timeout(max(1.0, self._timeout)):
            await self._load()
        for found in self.on_found:
            await found()
        self.up = True
        self._up_since = asyncio.get_running_loop().time()
        SHARED.set(1)
        log.info("limits are shared over Redis")

    def _lose(self, error: Exception, batch: Sequence[_Call]) -> None:
        if self.up:
            self.up = False
            self._log_loss(error)
            for lost in self.on_lost:
                lost()
            self._start_probe()
        self._fail(batch)
        self._fail(tuple(self._waiting))
        self._waiting.clear()

    def _log_loss(self, error: Exception) -> None:
        SHARED.set(0)
        LOSSES.inc()
        log.warning(
            "Redis is lost to the limits; this process counts for itself until it is back",
            extra={"error": type(error).__name__},
        )

    def _fail(self, batch: Sequence[_Call]) -> None:
        for call in batch:
            if call.answer is not None and not call.answer.done():
                call.answer.set_exception(Unshared())

    def _start_probe(self) -> None:
        self._probe = asyncio.create_task(self._probe_until_up(), name="limits-probe")

    async def _probe_until_up(self) -> None:
        if asyncio.get_running_loop().time() - self._up_since > STEADY_SECONDS:
            self._pause = FIRST_PAUSE
        while not self.up:
            # A connection that was cut off in the middle of an answer must not be used again.
            await self._redis.connection_pool.disconnect()
            await asyncio.sleep(self._pause)
            self._pause = min(LONGEST_PAUSE, self._pause * 2)
            # Any failure means the same: not yet.
            with suppress(Exception):
                await self._come_up()
