"""Several replicas over one Qdrant: any may die at any request, and of two writers one is first."""

import asyncio
import contextlib
import itertools
from typing import Any

import grpc
import pytest

from services.retrieve.adapters.qdrant.options import QdrantOptions
from services.retrieve.adapters.qdrant.store import RemoteQdrantStore
from services.retrieve.ports import CollectionKey
from services.runtime.errors import NotFound, RagmeshError, Unavailable
from tests.contract.retrieve.qdrant_server import Api, Refusal
from tests.contract.retrieve.stores import (
    KEY,
    chunks_of,
    collection,
    document,
    expected,
    put,
    texts,
)

WRITES = {"Upsert", "Delete", "SetPayload", "UpdateVectors"}
GONE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
async def api():
    one = Api()
    await one.server.start()
    yield one
    await one.server.stop(None)


@pytest.fixture
async def replicas(api):
    stores = [RemoteQdrantStore(api.url, QdrantOptions()) for _ in range(2)]
    for one in stores:
        await one.start()
    await stores[0].create_collection(collection(), 10)
    yield stores
    for one in stores:
        await one.aclose()


async def points(api, prefix="ragmesh-"):
    """How many points lie in the chunks' collections."""
    names = [one.name for one in (await api.client.get_collections()).collections]
    counts = [await api.client.count(n) for n in names if n != "ragmesh-catalog"]
    return sum(one.count for one in counts)


async def sweep(store):
    """What happens when all leases have run out."""
    await store._writer.sweep(-1.0)


async def test_what_one_replica_writes_the_other_finds(replicas):
    first, second = replicas
    await put(first, document("a"), document("b"))
    assert await texts(second) == expected(document("a"), document("b"))
    await put(second, document("a", "2"))
    assert await texts(first) == expected(document("a", "2"), document("b"))
    assert (await first.get_collection(KEY)).chunks == 6
    await second.delete_document(KEY, "b")
    assert [one.id for one in await first.list_documents(KEY, "", 10)] == ["a"]
    await second.delete_collection(KEY)
    for call in (first.get_collection, texts_of(first)):
        with pytest.raises(NotFound):
            await call(KEY)


def texts_of(store):
    return lambda key: texts(store, key)


async def test_a_document_that_another_replica_writes_hides_nothing(replicas):
    """Chunks that are not published take no places among the best."""
    first, second = replicas
    await put(first, document("a"))
    waiting = document("waiting", chunks=300)
    await second.stage(KEY, [("w", waiting)], chunks_of("w", waiting))
    assert await texts(first) == expected(document("a"))
    await second.publish(KEY, ["w"])
    assert len(await texts(first)) == 303


@pytest.mark.parametrize("same_content", [False, True])
async def test_of_two_writers_of_one_document_one_is_current(api, replicas, same_content):
    first, second = replicas
    await put(first, document("a", "0"))
    mine = document("a", "1", chunks=4)
    theirs = mine if same_content else document("a", "2", chunks=5)
    for store, one in ((first, mine), (second, theirs)):
        await store.stage(KEY, [("t", one)], chunks_of("t", one))
    both_read = asyncio.Barrier(2)

    async def meet(method: str, request: Any) -> None:
        """Both have read the record before either replaces it."""
        if method == "Upsert" and request.collection_name == "ragmesh-catalog":
            with contextlib.suppress(asyncio.BrokenBarrierError, TimeoutError):
                await asyncio.wait_for(both_read.wait(), 0.5)

    api.before = meet
    outcomes = await asyncio.gather(first.publish(KEY, ["t"]), second.publish(KEY, ["t"]))
    statuses = sorted(one.status for (one,) in outcomes)
    assert statuses == (["replaced", "unchanged"] if same_content else ["replaced", "replaced"])
    found = await texts(first)
    assert found in (expected(mine), expected(theirs))
    assert found == await texts(second)
    assert await points(api) == len(found)
    assert (await first.get_collection(KEY)).chunks == len(found)


@pytest.mark.parametrize("carried_out", [False, True], ids=["lost", "unanswered"])
@pytest.mark.parametrize("change", ["replace", "new", "delete", "move", "drop"])
async def test_a_replica_may_die_at_any_write(change, carried_out):
    """Whichever write is its last, others find the old or the new, whole, and leave no chunk."""
    for last in itertools.count(1):
        api = Api()
        await api.server.start()
        dying, other = (RemoteQdrantStore(api.url, QdrantOptions()) for _ in range(2))
        await dying.start()
        await other.start()
        await dying.create_collection(collection(), 10)
        await put(dying, document("a"), document("b"))
        writes = itertools.count(1)

        async def die(method: str, request: Any, writes=writes, last=last) -> None:
            if method in WRITES and next(writes) >= last:
                raise Refusal(GONE, "the replica is dead")

        setattr(api, "after" if carried_out else "before", die)
        with contextlib.suppress(RagmeshError):
            await CHANGES[change](dying)
        ended = next(writes) <= last
        api.before = api.after = _nothing
        try:
            before = expected(document("a"), document("b"))
            after = expected(*AFTER[change])
            found = await _found(other)
            assert found in (before, after), (last, found)
            await sweep(other)
            assert await _found(other) == found
            assert await points(api) == len(found), last
            if found:
                assert (await other.get_collection(KEY)).chunks == len(found)
        finally:
            await dying.aclose()
            await other.aclose()
            await api.server.stop(None)
        if ended:
            assert found == after
            return


async def _nothing(method: str, request: Any) -> None:
    """Nobody dies."""


async def _found(store):
    try:
        return await texts(store)
    except NotFound:
        return []


async def _move(store):
    new = document("c")
    await store.stage(KEY, [("t", new)], chunks_of("t", new))
    await store.publish(KEY, ["t"], [("b", "b-1")])


CHANGES = {
    "replace": lambda store: put(store, document("a", "2", chunks=7)),
    "new": lambda store: put(store, document("c")),
    "delete": lambda store: store.delete_document(KEY, "b"),
    "move": _move,
    "drop": lambda store: store.delete_collection(KEY),
}
AFTER = {
    "replace": [document("a", "2", chunks=7), document("b")],
    "new": [document("a"), document("b"), document("c")],
    "delete": [document("a")],
    "move": [document("a"), document("c")],
    "drop": [],
}


async def test_a_writer_that_was_taken_for_dead_publishes_nothing(api, replicas):
    paused, other = replicas
    one = document("a")
    await paused.stage(KEY, [("t", one)], chunks_of("t", one))
    await sweep(other)
    with pytest.raises(Unavailable):
        await paused.publish(KEY, ["t"])
    assert await texts(other) == []
    assert await points(api) == 0
    await put(paused, one)
    assert await texts(other) == expected(one)


async def test_a_collection_that_is_deleted_meanwhile_takes_nothing_in(api, replicas):
    first, second = replicas
    one = document("a")
    await first.stage(KEY, [("t", one)], chunks_of("t", one))
    await second.delete_collection(KEY)
    with pytest.raises(NotFound):
        await first.publish(KEY, ["t"])
    first.discard(KEY, ["t"])
    await second.create_collection(collection(), 10)
    assert await texts(first) == []
    await first.aclose()
    await sweep(second)
    assert await points(api) == 0


async def test_a_collection_is_made_by_one_of_two(replicas):
    key = CollectionKey("tenant", "both")
    made = await asyncio.gather(
        *(one.create_collection(collection(key), 10) for one in replicas), return_exceptions=True
    )
    assert sum(isinstance(one, BaseException) for one in made) <= 1
    generations = {(await one.get_collection(key)).generation for one in replicas}
    assert len(generations) == 1
