"""Vectors of questions, kept in two levels: in this process, then where all replicas look.

Keys hold no text: they are digests of the encoder's revision and the question. The same question,
asked several times at once, is encoded once.
"""

import asyncio
import hashlib
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client import Counter

from services.retrieve.ports import EncoderFacts, VectorCache

LOOKUPS = Counter(
    "ragmesh_retrieve_query_cache_lookups",
    "Look-ups of a question's vector by level and outcome; joined: it was being encoded.",
    ["level", "outcome"],
)

_HEADER = struct.Struct("<f")


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """A question's vector, and how much of it the encoder knew."""

    dense: bytes
    """Little-endian float32."""
    unknown: float
    """Share of its tokens that the vocabulary does not know, from 0 to 1."""


Encode = Callable[[], Awaitable[EncodedQuery]]


@dataclass(slots=True)
class _Flight:
    """A question on its way, and how many wait for it."""

    task: "asyncio.Task[EncodedQuery]"
    callers: int = 0


class QueryVectors:
    """The cache, and the questions that are being encoded now."""

    def __init__(self, size: int, shared: VectorCache | None = None) -> None:
        """Args:
        size: vectors that are kept in memory.
        shared: the second level.
        """
        self._size = size
        self._shared = shared
        self._kept: OrderedDict[str, EncodedQuery] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._revision = ""
        self._dimensions = 0

    def start(self, facts: EncoderFacts) -> None:
        """Keep vectors of this encoder from now on."""
        self._revision = f"{facts.id} {facts.revision}"
        self._dimensions = facts.dimensions

    async def aclose(self) -> None:
        flights = [flight.task for flight in self._flights.values()]
        for task in flights:
            task.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        if self._shared is not None:
            await self._shared.aclose()

    async def get(self, text: str, encode: Encode) -> EncodedQuery:
        """The vector of a normalised text, made by `encode` where nobody has it."""
        kept = self._kept.get(text)
        if kept is not None:
            self._kept.move_to_end(text)
            LOOKUPS.labels("memory", "hit").inc()
            return kept
        flight = self._flights.get(text)
        if flight is None:
            LOOKUPS.labels("memory", "miss").inc()
            flight = _Flight(asyncio.create_task(self._fetch(text, encode)))
            self._flights[text] = flight
        else:
            LOOKUPS.labels("memory", "joined").inc()
        flight.callers += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.callers -= 1
            if not flight.callers:  # it is done, or nobody waits for it any more
                flight.task.cancel()
                if self._flights.get(text) is flight:
                    del self._flights[text]

    async def _fetch(self, text: str, encode: Encode) -> EncodedQuery:
        key = self._key(text)
        found = await self._find_shared(key)
        encoded = found or await encode()
        if self._shared is not None and found is None:
            self._shared.put(key, _HEADER.pack(encoded.unknown) + encoded.dense)
        if self._size:
            while len(self._kept) >= self._size:
                self._kept.popitem(last=False)
            self._kept[text] = encoded
        return encoded

    async def _find_shared(self, key: str) -> EncodedQuery | None:
        if self._shared is None:
            return None
        value = await self._shared.get(key)
        # A value of another length is not ours.
        found = value is not None and len(value) == _HEADER.size + 4 * self._dimensions
        LOOKUPS.labels("shared", "hit" if found else "miss").inc()
        if value is None or not found:
            return None
        return EncodedQuery(value[_HEADER.size :], _HEADER.unpack_from(value)[0])

    def _key(self, text: str) -> str:
        return hashlib.sha256(f"{self._revision}\0{text}".encode()).hexdigest()
