"""Chunks in a real Redis: what is refused, and what outlives a server's death."""

import numpy as np
import pytest

from services.retrieve.__main__ import _store
from services.retrieve.adapters.points import Allowed, point_id
from services.retrieve.adapters.redis import shards
from services.retrieve.adapters.redis.connection import Connection
from services.retrieve.adapters.redis.options import RedisOptions
from services.retrieve.adapters.redis.shards import RedisShards
from services.retrieve.adapters.redis.store import RedisStore
from services.retrieve.ports import Bounds, Condition, Filter, SparseVector
from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import FailedPrecondition, RagmeshError, Unavailable
from tests.contract.retrieve.redis_eight import durable_server, redis_server
from tests.contract.retrieve.stores import (
    KEY,
    chunks_of,
    collection,
    dense_texts,
    document,
    expected,
    put,
    texts,
)
from tests.redis_server import RedisServer
from tests.unit.retrieve.test_faiss import FACTS, points, vectors

LOSSY = RedisOptions(durable=False)


@pytest.fixture
def running(tmp_path):
    """Starts servers, and ends them."""
    servers: list[RedisServer] = []

    def start(server: RedisServer) -> RedisServer:
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.kill()


async def refused(store: RedisStore) -> RagmeshError:
    with pytest.raises(FailedPrecondition) as caught:
        await store.start()
    await store.aclose()
    return caught.value


async def test_a_server_without_vectors_is_refused(tmp_path, running):
    server = running(RedisServer(tmp_path))  # Debian's 7.0
    error = await refused(RedisStore(server.url, tmp_path, LOSSY))
    assert error.reason == "ENGINE_TOO_OLD"
    assert "VADD" in error.message
    assert "WAITAOF" in error.message
    assert "EVAL_RO" not in error.message  # which 7.0 has


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--appendonly", "no"), "appendonly"),
        (
            ("--appendonly", "yes", "--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"),
            "maxmemory-policy",
        ),
    ],
)
async def test_a_server_that_may_lose_chunks_is_refused_unless_that_is_accepted(
    tmp_path, running, options, told
):
    server = running(redis_server(tmp_path / "server", *options))
    error = await refused(RedisStore(server.url, tmp_path, RedisOptions()))
    assert error.reason == "ENGINE_NOT_DURABLE"
    assert told in error.message
    store = RedisStore(server.url, tmp_path, LOSSY)
    await store.start()
    await store.create_collection(collection(), 10)
    await put(store, document("a"))
    assert await texts(store) == expected(document("a"))
    await store.aclose()


async def test_a_wrong_password_is_refused_and_the_right_one_is_not(tmp_path, running):
    server = running(redis_server(tmp_path / "server", "--requirepass", "right"))
    wrong = RedisOptions(durable=False, password="wrong")
    assert (await refused(RedisStore(server.url, tmp_path, wrong))).reason == "ENGINE_ACCESS_DENIED"
    store = RedisStore(server.url, tmp_path, RedisOptions(durable=False, password="right"))
    await store.start()
    await store.aclose()


async def test_keys_belong_to_one_catalogue(tmp_path, running):
    server = running(durable_server(tmp_path / "server"))
    store = RedisStore(server.url, tmp_path / "one", RedisOptions())
    await store.start()
    other = RedisStore(server.url, tmp_path / "two", RedisOptions())
    assert (await refused(other)).reason == "DATA_IN_USE"
    beside = RedisStore(server.url, tmp_path / "two", RedisOptions(prefix="beside"))
    await beside.start()
    await beside.aclose()
    await store.aclose()


@pytest.mark.parametrize("fsync", ["everysec", "always"])
async def test_what_is_acknowledged_survives_the_death_of_the_server(tmp_path, running, fsync):
    server = running(durable_server(tmp_path / "server", fsync))
    store = RedisStore(server.url, tmp_path, RedisOptions())
    await store.start()
    await store.create_collection(collection(), 10)
    for number in range(3):
        await put(store, document(f"d{number}"))
        server.kill()
        with pytest.raises(Unavailable) as caught:
            await texts(store)
        assert caught.value.reason == "ENGINE_UNAVAILABLE"
        server.start()
        everything = expected(*(document(f"d{one}") for one in range(number + 1)))
        assert await texts(store) == everything
        assert await dense_texts(store) == everything
    await store.aclose()


async def test_what_a_server_lost_while_it_was_written_is_not_published(tmp_path, running):
    server = running(redis_server(tmp_path / "server", "--appendonly", "no"))
    store = RedisStore(server.url, tmp_path, LOSSY)
    await store.start()
    await store.create_collection(collection(), 10)
    await store.stage(KEY, [("t", document("a"))], chunks_of("t", document("a")))
    server.kill()
    server.start()
    with pytest.raises(Unavailable):
        await store.publish(KEY, ["t"])
    store.discard(KEY, ["t"])
    await put(store, document("b"))
    assert await texts(store) == expected(document("b"))
    await store.aclose()


async def test_no_key_is_left_of_a_deleted_tenant(tmp_path, running):
    server = running(durable_server(tmp_path / "server"))
    store = RedisStore(server.url, tmp_path, RedisOptions())
    await store.start()
    await store.create_collection(collection(), 10)
    await put(store, document("a"), document("b"))
    await store.delete_tenant(KEY.tenant)
    assert sorted(Connection(server.url, RedisOptions()).call("KEYS", "*")) == [
        b"ragmesh:flushes",
        b"ragmesh:owner",
    ]
    await store.aclose()


def test_the_graph_finds_what_a_scan_finds_and_filters_hold(tmp_path, running, monkeypatch):
    monkeypatch.setattr(shards, "SCANNED", 0)
    server = running(durable_server(tmp_path / "server", "everysec"))
    connection = Connection(server.url, RedisOptions())
    connection.check()
    shard = RedisShards(connection).open("t/c", FACTS, expect_data=False)
    made = vectors()
    shard.upsert(points(made))
    hits = wanted = 0
    for query in vectors(20, seed=2):
        best = [point_id(1 + row, 0) for row in np.argsort(-(made @ query))[:10].tolist()]
        found = shard.nearest(query.tobytes(), 10, Allowed())
        assert [score for _, score in found] == pytest.approx(
            [float(made[(point >> 20) - 1] @ query) for point, _ in found], abs=1e-5
        )
        hits += len({point for point, _ in found} & set(best))
        wanted += 10
    assert hits / wanted >= 0.98
    few = Filter(must=(Condition("metadata.n", range=Bounds(gt=595.0)),))
    allowed = Allowed(filter=few, hidden=frozenset({point_id(600, 0)}))
    left = {point_id(one, 0) for one in (596, 597, 598, 599)}
    assert {point for point, _ in shard.nearest(made[0].tobytes(), 10, allowed)} == left
    sparse = SparseVector((1000,), (1.0,))
    assert {point for point, _ in shard.nearest(sparse, 10, allowed)} == left
    stored = shard.vectors([point_id(3, 0)])[point_id(3, 0)]
    assert np.frombuffer(stored, "<f4") == pytest.approx(made[2], abs=1e-6)
    connection.close()


@pytest.mark.parametrize(
    "url",
    ["redis://", "redis://:secret@r", "redis://r/x", "redis://r:99999", "redis://r?db=1"],
)
def test_addresses_that_are_none(url, tmp_path):
    with pytest.raises(FailedPrecondition) as caught:
        _store(RetrieveSettings(vector_url=url, data=tmp_path))
    assert caught.value.reason == "VECTOR_URL_INVALID"
    assert "secret" not in caught.value.message


def test_settings_reach_the_store(tmp_path):
    store = _store(RetrieveSettings(vector_url="rediss://me@r:7000/2", data=tmp_path))
    assert store.backend == "redis"
    with pytest.raises(FailedPrecondition) as caught:
        _store(RetrieveSettings(vector_url="rediss://r", vector_ca=tmp_path / "no", data=tmp_path))
    assert caught.value.reason == "VECTOR_CA_UNREADABLE"
