"""Query vectors in Redis, for all replicas; its absence costs time only.

Keys are digests under one prefix, values bytes that expire. After a failure Redis is left alone for
a while that doubles, so that one which hangs costs one time-out now and then, not one a question.
"""

import asyncio
import logging

from prometheus_client import Counter, Gauge
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import FailedPrecondition

log = logging.getLogger(__name__)

SHARED = Gauge(
    "ragmesh_retrieve_query_cache_shared",
    "1 while query vectors are shared over Redis, 0 while Redis is away.",
)
FAILURES = Counter(
    "ragmesh_retrieve_query_cache_redis_failures", "Calls that Redis failed or answered too late."
)

_PREFIX = "ragmesh:query-vector:1:"
FIRST_REST, LONGEST_REST = 0.5, 30.0
"""Seconds that Redis is left alone after a failure; doubled while it keeps failing."""
_MAX_WRITES = 64
"""Writes under way; past it they are dropped."""


class RedisVectors:
    """A `VectorCache` in Redis."""

    def __init__(self, url: str, *, timeout: float, ttl: int) -> None:
        """Args:
        timeout: seconds that one call may take, connecting included.
        ttl: seconds that a value is kept.

        Raises:
            FailedPrecondition: REDIS_URL_INVALID.
        """
        try:
            self._redis = Redis.from_url(
                url,
                socket_timeout=None,  # a call is bounded as a whole, by asyncio
                socket_connect_timeout=None,
                # Once, at once: an idle connection may have been closed since it was last used.
                retry=Retry(NoBackoff(), 1),
            )
        except ValueError as error:
            raise FailedPrecondition(
                "REDIS_URL_INVALID",
                "REDIS_URL must look like redis://user:password@host:6379/0, rediss://... or "
                "unix:///path.",
            ) from error
        self._timeout = timeout
        self._ttl = ttl
        self._rest = FIRST_REST
        self._resting_until = 0.0
        self._trying = False
        self._failed = False
        self._writes: set[asyncio.Task[None]] = set()

    @classmethod
    def from_settings(cls, settings: RetrieveSettings) -> "RedisVectors | None":
        """None where there is no Redis."""
        if settings.redis_url is None:
            return None
        return cls(
            settings.redis_url.get_secret_value(),
            timeout=settings.query_cache_redis_timeout,
            ttl=settings.query_cache_ttl,
        )

    async def get(self, key: str) -> bytes | None:
        if not self._may_try():
            return None
        try:
            async with asyncio.timeout(self._timeout):
                value = await self._redis.get(_PREFIX + key)
        except Exception as error:  # whatever the client library raises, the question goes on
            self._fail(error)
            return None
        finally:
            self._trying = False
        self._succeed()
        return value if isinstance(value, bytes) else None

    def put(self, key: str, value: bytes) -> None:
        if not self._failed and len(self._writes) < _MAX_WRITES:
            task = asyncio.create_task(self._write(key, value))
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)

    async def aclose(self) -> None:
        for task in tuple(self._writes):
            task.cancel()
        await asyncio.gather(*self._writes, return_exceptions=True)
        await self._redis.aclose()

    async def _write(self, key: str, value: bytes) -> None:
        try:
            async with asyncio.timeout(max(1.0, self._timeout)):
                await self._redis.set(_PREFIX + key, value, ex=self._ttl)
        except Exception as error:
            self._fail(error)

    def _may_try(self) -> bool:
        """Whether to ask Redis; after a failure and its rest, one call tries for all."""
        if not self._failed:
            return True
        if self._trying or asyncio.get_running_loop().time() < self._resting_until:
            return False
        self._trying = True
        return True

    def _succeed(self) -> None:
        if self._failed:
            log.info("query vectors are shared over Redis again")
        self._failed = False
        self._rest = FIRST_REST
        SHARED.set(1)

    def _fail(self, error: Exception) -> None:
        FAILURES.inc()
        SHARED.set(0)
        if not self._failed:
            log.warning(
                "Redis is lost to the cache of query vectors; questions are encoded here",
                extra={"error": type(error).__name__},
            )
        else:
            self._rest = min(LONGEST_REST, self._rest * 2)
        self._failed = True
        self._resting_until = asyncio.get_running_loop().time() + self._rest
