"""Vectors of questions in two levels, the second a real Redis."""

import asyncio
import shutil
import struct

import numpy as np
import pytest

from services.retrieve.adapters.redis_vectors import RedisVectors
from services.retrieve.ports import EncoderFacts
from services.retrieve.querycache import EncodedQuery, QueryVectors
from tests.redis_server import RedisServer


def facts(revision="1"):
    return EncoderFacts(
        name="words", version="1", dimensions=2, max_tokens=9, special_tokens=0, vocabulary=9,
        languages=(), tokenizer=b"", tokenizer_id="", owned_by="tests", revision=revision,
    )  # fmt: skip


class Encoding:
    """Counts what is encoded."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> EncodedQuery:
        self.count += 1
        await self.gate.wait()
        return EncodedQuery(np.array([self.count, 0], "<f4").tobytes(), 0.25)


def cache(shared=None, revision="1", size=10):
    made = QueryVectors(size, shared)
    made.start(facts(revision))
    return made


@pytest.fixture
def redis(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server: apt-get install redis-server")
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


async def test_the_same_question_at_once_is_encoded_once():
    encode, vectors = Encoding(), cache()
    encode.gate.clear()
    asking = [asyncio.create_task(vectors.get("q", encode)) for _ in range(5)]
    await asyncio.sleep(0.01)
    asking[0].cancel()  # the first one leaves, the others still get it
    await asyncio.sleep(0.01)
    encode.gate.set()
    assert len(set(await asyncio.gather(*asking[1:]))) == 1
    assert encode.count == 1


async def test_nobody_waits_any_more():
    encode, vectors = Encoding(), cache()
    encode.gate.clear()
    asking = asyncio.create_task(vectors.get("q", encode))
    await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    encode.gate.set()
    await vectors.get("q", encode)
    assert encode.count == 2


async def test_replicas_share_what_they_encode(redis):
    links = [RedisVectors(redis.url, timeout=2.0, ttl=60) for _ in range(2)]
    encode = Encoding()
    one, other = cache(links[0]), cache(links[1])
    first = await one.get("secret question", encode)
    keys: list[bytes | str] = []
    async with asyncio.timeout(20):
        while not keys:
            await asyncio.sleep(0.01)
            keys = await links[0]._redis.keys("*")
    assert await other.get("secret question", encode) == first
    assert encode.count == 1
    assert all("secret" not in str(key) for key in keys)
    assert await links[0]._redis.ttl(keys[0]) > 0
    changed = cache(links[1], revision="2")
    await changed.get("secret question", encode)
    assert encode.count == 2
    for link in (one, other):
        await link.aclose()


async def test_a_value_that_is_none_of_ours_is_encoded_again(redis):
    link, encode = RedisVectors(redis.url, timeout=2.0, ttl=60), Encoding()
    vectors = cache(link)
    await link._redis.set(f"ragmesh:query-vector:1:{vectors._key('q')}", struct.pack("<f", 1))
    assert (await vectors.get("q", encode)).unknown == 0.25
    await vectors.aclose()


async def test_a_redis_that_is_away_or_hangs_costs_no_question(redis):
    link, encode = RedisVectors(redis.url, timeout=0.2, ttl=60), Encoding()
    vectors = cache(link, size=0)
    await vectors.get("q", encode)
    redis.kill()
    for number in range(5):
        await vectors.get(f"q{number}", encode)
    assert encode.count == 6
    assert link._failed
    await vectors.aclose()
