"""Streams at a time."""

import asyncio

import pytest

from gateway.limits.link import RedisLink
from gateway.limits.streams import StreamPlaces
from services.runtime.errors import ResourceExhausted
from tests.redis_server import RedisServer
from tests.unit.gateway_limits.conftest import SCRIPTS, MakeReplica, eventually


async def outcome(places: StreamPlaces, tenant: str = "t") -> bool:
    """Whether a stream found a place; it keeps it."""
    try:
        await places.enter(tenant)
    except ResourceExhausted:
        return False
    return True


async def test_places_of_one_process_are_exact():
    places = StreamPlaces(3, lease=30)
    assert sum(await asyncio.gather(*(outcome(places) for _ in range(100)))) == 3
    with pytest.raises(ResourceExhausted) as refused:
        await places.enter("t")
    assert refused.value.reason == "STREAM_LIMIT_EXCEEDED"
    assert await outcome(places, "another")


async def test_a_place_is_free_again_however_its_stream_ends():
    places = StreamPlaces(1, lease=30)
    with await places.enter("t") as place:
        assert places.held("t") == 1
        place.release()
        place.release()
        assert places.held("t") == 0
    with pytest.raises(asyncio.CancelledError), await places.enter("t"):
        raise asyncio.CancelledError
    with await places.enter("t"):
        pass


async def test_without_a_limit_nothing_is_counted():
    places = StreamPlaces(None, lease=30)
    with await places.enter("t"):
        assert places.held("t") == 0


async def test_replicas_share_the_places(replica: MakeReplica):
    both = [StreamPlaces(5, link=(await replica())[1], lease=30) for _ in range(2)]
    entered = await asyncio.gather(*(outcome(places) for places in both * 50))
    assert sum(entered) == 5
    assert both[0].held("t") + both[1].held("t") == 5
    for places in both:
        await places.aclose()


async def test_a_release_is_seen_by_the_other_replica(replica: MakeReplica):
    one, two = [StreamPlaces(1, link=(await replica())[1], lease=30) for _ in range(2)]
    place = await one.enter("t")
    assert not await outcome(two)
    place.release()

    await eventually(lambda: outcome(two))
    for places in (one, two):
        await places.aclose()


async def test_a_cancelled_entry_leaves_no_place_behind(replica: MakeReplica):
    places = StreamPlaces(1, link=(await replica())[1], lease=30)
    entering = asyncio.create_task(places.enter("t"))
    await asyncio.sleep(0)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert places.held("t") == 0
    assert await outcome(places)
    await places.aclose()


async def test_a_process_that_died_frees_its_places_when_their_lease_ends(
    replica: MakeReplica, redis: RedisServer
):
    dying_link = RedisLink(redis.url, SCRIPTS, timeout=5)
    await dying_link.start()
    dying = StreamPlaces(1, link=dying_link, lease=1)
    living = StreamPlaces(1, link=(await replica())[1], lease=1)
    await dying.enter("t")
    # While it lives it renews, well past its lease.
    await asyncio.sleep(1.6)
    assert not await outcome(living)
    # It dies: nobody renews, nobody releases.
    await dying.aclose()
    await dying_link.aclose()
    await asyncio.sleep(1.1)
    assert await outcome(living)
    await living.aclose()


async def test_places_are_taken_again_in_a_redis_that_lost_them(
    replica: MakeReplica, redis: RedisServer
):
    (_, link), (_, other_link) = await replica(), await replica()
    places = StreamPlaces(2, link=link, lease=30)
    other = StreamPlaces(2, link=other_link, lease=30)
    await places.enter("t")
    redis.kill()
    # Without Redis each process counts its own.
    assert await outcome(places)
    assert not await outcome(places)
    redis.start()
    await eventually(lambda: link.up and other_link.up)
    assert not await outcome(other)
    await places.aclose()
    await other.aclose()
