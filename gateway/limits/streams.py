"""Streams of a tenant at a time.

In one process the count is exact. Over Redis every stream holds a place with a lease: the process
renews the leases of its streams together, and a process that was killed frees its places when
they run out. Without Redis each process counts its own streams.
"""

import asyncio
import uuid
from contextlib import suppress

from gateway.limits.link import RedisLink, Script, Unshared
from gateway.limits.shared import PREFIX
from services.runtime.errors import ResourceExhausted

REASON = "STREAM_LIMIT_EXCEEDED"
RETRY_SECONDS = 1.0
"""Nobody knows when a stream ends; this is worth a try."""

# Leases are told by Redis's clock, so processes need not agree on the time.
ENTER = Script(
    """
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
    if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
    redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    return 1
    """
)
"""KEYS: places. ARGV: the stream, the limit, the lease in milliseconds."""

RENEW = Script(
    """
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    for i = 2, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i]) end
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
    return 1
    """
)
"""KEYS: places. ARGV: the lease in milliseconds, then streams. A place that is gone is taken
again: the stream does run."""

LEAVE = Script("return redis.call('ZREM', KEYS[1], ARGV[1])")
"""KEYS: places. ARGV: the stream."""

MAX_RENEWED = 500
"""Streams a call of RENEW."""


class Place:
    """One stream's place. Releasing returns at once and may be repeated."""

    __slots__ = ("_places", "_stream", "_tenant")

    def __init__(self, places: "StreamPlaces | None", tenant: str, stream: str) -> None:
        self._places = places
        self._tenant = tenant
        self._stream = stream

    def release(self) -> None:
        places, self._places = self._places, None
        if places is not None:
            places.free(self._tenant, self._stream)

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, kind: object, error: object, where: object) -> None:
        self.release()


class StreamPlaces:
    """Gives each tenant at most `limit` places at a time."""

    def __init__(self, limit: int | None, *, link: RedisLink | None = None, lease: float) -> None:
        """Args:
        limit: places of a tenant; None does not limit.
        lease: seconds that a place outlives its process.
        """
        self._limit = limit
        self._link = link
        self._lease_ms = int(lease * 1000)
        self._held: dict[str, set[str]] = {}
        self._process = uuid.uuid4().hex
        self._count = 0
        self._renewer: asyncio.Task[None] | None = None
        if link is not None and limit is not None:
            # Redis is back: take the places again that streams of this process hold.
            link.on_found.append(lambda: link.run_directly(RENEW, self._renewals()))

    async def enter(self, tenant: str) -> Place:
        """Take a place for a stream.

        Raises:
            ResourceExhausted: STREAM_LIMIT_EXCEEDED.
        """
        if self._limit is None:
            return Place(None, tenant, "")
        held = self._held.setdefault(tenant, set())
        if len(held) >= self._limit:
            raise self._full()
        self._count += 1
        stream = f"{self._process}:{self._count}"
        # Before asking Redis, so that this process never holds more than the limit by itself.
        held.add(stream)
        place = Place(self, tenant, stream)
        if self._link is None:
            return place
        if self._renewer is None:
            renew = self._renew_forever(self._link)
            self._renewer = asyncio.create_task(renew, name="limits-leases")
        try:
            entered = await self._link.run(
                ENTER, [_name(tenant)], [stream, self._limit, self._lease_ms]
            )
        except Unshared:
            return place
        except BaseException:
            place.release()  # cancelled while asking
            raise
        if not entered:
            place.release()
            raise self._full()
        return place

    def held(self, tenant: str) -> int:
        """Places that a tenant holds in this process."""
        return len(self._held.get(tenant, ()))

    def free(self, tenant: str, stream: str) -> None:
        held = self._held.get(tenant)
        if held is None or stream not in held:
            return
        held.discard(stream)
        if not held:
            del self._held[tenant]
        if self._link is not None:
            self._link.post(LEAVE, [_name(tenant)], [stream])

    async def aclose(self) -> None:
        if self._renewer is not None:
            self._renewer.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewer

    def _full(self) -> ResourceExhausted:
        return ResourceExhausted(
            REASON,
            f"The limit of {self._limit} streams at a time is reached.",
            retry_after=RETRY_SECONDS,
        )

    async def _renew_forever(self, link: RedisLink) -> None:
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            for keys, args in self._renewals():
                link.post(RENEW, keys, args)

    def _renewals(self) -> list[tuple[list[str], list[int | str]]]:
        calls = []
        for tenant, held in self._held.items():
            streams = tuple(held)
            for first in range(0, len(streams), MAX_RENEWED):
                args: list[int | str] = [self._lease_ms, *streams[first : first + MAX_RENEWED]]
                calls.append(([_name(tenant)], args))
        return calls


def _name(tenant: str) -> str:
    return f"{PREFIX}streams:{tenant}"
