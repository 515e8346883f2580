"""The face: a request let in, a generation begun, a file followed."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from gateway.auth import Principal
from gateway.limits.limiter import Limiter
from gateway.limits.settings import LimitSettings
from services.runtime.errors import ResourceExhausted
from tests.redis_server import RedisServer
from tests.unit.gateway_limits.conftest import NOON, Clock


def principal(consumer: str = "local", tenant: str = "acme") -> Principal:
    return Principal(consumer, tenant, f"{consumer}/{tenant}", "u", frozenset(), None, NOON + 600)


def edge_file(folder: Path, minute: int, **config: Any) -> Path:
    plugin = {"name": "rate-limiting", "config": {"minute": minute} | config}
    routes = [
        {"name": "v1", "paths": ["/v1"], "plugins": [{"name": "jwt"}, plugin]},
        {"name": "open", "paths": ["/open"], "plugins": [plugin]},
        {"name": "health", "paths": ["/health"]},
    ]
    file = folder / "kong.yml"
    file.write_text(yaml.safe_dump({"services": [{"name": "gateway", "routes": routes}]}))
    return file


def limiter(clock: Clock, file: Path | None, **settings: Any) -> Limiter:
    return Limiter(LimitSettings(**settings), file, now=clock, monotonic=clock)


async def passes(limiter: Limiter, who: Principal | None, address: str = "192.0.2.1") -> bool:
    return (await limiter.admit(who, address, "POST", "/v1/query")).refusal is None


async def test_a_consumer_has_one_count_for_all_its_tenants_and_addresses(tmp_path, clock: Clock):
    door = limiter(clock, edge_file(tmp_path, 2))
    assert await passes(door, principal(tenant="a"), "192.0.2.1")
    assert await passes(door, principal(tenant="b"), "192.0.2.2")
    assert not await passes(door, principal(tenant="a"), "192.0.2.3")
    assert await passes(door, principal("another"))


async def test_where_no_token_is_needed_the_address_counts(tmp_path, clock: Clock):
    door = limiter(clock, edge_file(tmp_path, 1))

    async def enters(address: str, who: Principal | None = None) -> bool:
        return (await door.admit(who, address, "GET", "/open")).refusal is None

    assert await enters("192.0.2.1")
    assert not await enters("192.0.2.1")
    assert not await enters("192.0.2.1", principal()), "nobody looks at a token there"
    assert await enters("192.0.2.2")


async def test_nobody_is_not_counted_where_a_token_is_needed(tmp_path, clock: Clock):
    """The route refuses with 401, as Kong does before it counts."""
    door = limiter(clock, edge_file(tmp_path, 1))
    for _ in range(3):
        admission = await door.admit(None, "192.0.2.1", "POST", "/v1/query")
        assert (admission.refusal, admission.headers) == (None, {})


@pytest.mark.parametrize(("limit_by", "other"), [("ip", True), ("service", False)])
async def test_other_identifiers(tmp_path, clock: Clock, limit_by, other):
    door = limiter(clock, edge_file(tmp_path, 1, limit_by=limit_by))
    assert await passes(door, principal("one"), "192.0.2.1")
    assert not await passes(door, principal("two"), "192.0.2.1")
    assert await passes(door, principal("three"), "192.0.2.2") is other


async def test_a_route_without_the_plugin_is_free(tmp_path, clock: Clock):
    door = limiter(clock, edge_file(tmp_path, 1))
    for _ in range(3):
        admission = await door.admit(None, "192.0.2.1", "GET", "/health/live")
        assert admission.refusal is None
        assert admission.headers == {}


async def test_behind_kong_only_the_tenants_own_limits_hold_and_kong_tells(clock: Clock):
    door = limiter(clock, None, tenant_requests_per_minute=2)
    for _ in range(2):
        admission = await door.admit(principal(), "192.0.2.1", "POST", "/v1/query")
        assert (admission.refusal, admission.headers) == (None, {})
    refused = await door.admit(principal(), "192.0.2.1", "POST", "/v1/query")
    assert refused.refusal is not None
    assert await passes(door, principal(tenant="another"))
    assert await passes(door, None)


async def test_refusals_are_counted(tmp_path, clock: Clock):
    def counted(limit: str) -> float:
        return REGISTRY.get_sample_value("ragmesh_gateway_limited_total", {"limit": limit}) or 0

    before = {limit: counted(limit) for limit in ("edge", "tokens", "streams")}
    door = limiter(clock, edge_file(tmp_path, 1), tenant_tokens_per_minute=100, tenant_streams=1)
    await passes(door, principal())
    await passes(door, principal())
    with await door.begin("t", prompt=10, max_output=80, stream=True):
        with pytest.raises(ResourceExhausted):
            await door.begin("t", prompt=10, max_output=80, stream=True)
        with pytest.raises(ResourceExhausted):
            await door.begin("t", prompt=10, max_output=80, stream=False)
    assert {limit: counted(limit) - before[limit] for limit in before} == {
        "edge": 1,
        "tokens": 1,
        "streams": 1,
    }


async def test_a_generation_gives_back_its_place_and_what_it_did_not_use(clock: Clock):
    door = limiter(clock, None, tenant_tokens_per_minute=100, tenant_streams=1)

    async def stream() -> None:
        with await door.begin("t", prompt=10, max_output=80, stream=True) as work:
            assert work.max_output == 80
            work.tokens.saw(5)
            await asyncio.sleep(60)

    task = asyncio.create_task(stream())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with await door.begin("t", prompt=5, max_output=80, stream=True) as work:
        assert work.headers["x-ratelimit-remaining-tokens"] == "0"


async def test_a_refused_reservation_keeps_no_place(clock: Clock):
    door = limiter(clock, None, tenant_tokens_per_minute=100, tenant_streams=1)
    await door.begin("t", prompt=60, max_output=30, stream=False)
    with pytest.raises(ResourceExhausted) as refused:
        await door.begin("t", prompt=60, max_output=30, stream=True)
    assert refused.value.reason == "TOKEN_LIMIT_EXCEEDED"
    clock.now += 60
    with await door.begin("t", prompt=60, max_output=30, stream=True):
        pass


async def test_the_file_is_followed_and_a_broken_one_is_not(tmp_path, clock: Clock, caplog):
    door = limiter(clock, edge_file(tmp_path, 1))
    assert await passes(door, principal())
    assert not await passes(door, principal())
    edge_file(tmp_path, 30)
    assert not await passes(door, principal()), "not looked at yet"
    clock.now += 1
    assert await passes(door, principal())
    (tmp_path / "kong.yml").write_text("services: [{name: gateway, routes: [{}]}]")
    clock.now += 1
    assert await passes(door, principal())
    assert "limits not reloaded" in caplog.text


async def test_over_redis(redis: RedisServer, clock: Clock, tmp_path):
    file = edge_file(tmp_path, 50)
    doors = [
        limiter(clock, file, redis_url=redis.url, limit_redis_timeout=5, tenant_streams=3)
        for _ in range(2)
    ]
    for door in doors:
        await door.start()
        assert door.is_shared
    admitted = await asyncio.gather(*(passes(door, principal()) for door in doors * 100))
    assert sum(admitted) == 50
    works = []
    for door in (doors[0], doors[1], doors[0]):
        works.append(await door.begin("t", prompt=1, max_output=1, stream=True))
    with pytest.raises(ResourceExhausted):
        await doors[1].begin("t", prompt=1, max_output=1, stream=True)
    for work in works:
        with work:
            pass
    for door in doors:
        await door.aclose()
