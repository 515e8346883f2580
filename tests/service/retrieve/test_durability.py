"""What was acknowledged survives ``kill -9`` of either process, and no document is ever torn."""

import asyncio
import os
import random
import signal
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from services.retrieve.adapters.edge import client
from services.retrieve.adapters.edge.client import EdgeStore
from services.retrieve.adapters.edge.engine import _carry_out, open_index
from services.runtime.errors import FailedPrecondition, Unavailable
from tests.contract.retrieve.stores import (
    KEY,
    chunks_of,
    collection,
    document,
    expected,
    put,
    texts,
)
from tests.service.retrieve.writer import write

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "5"))  # noqa: TID251 - `make soak` sets it
A_WHILE = pytest.mark.timeout(120 + 5 * ROUNDS)
MERGE_POINTS = [10_000, 8]
"""Chunks from which a collection is merged: more than there are, and so few that it always is."""
REPOSITORY = Path(__file__).resolve().parents[3]


async def check_whole(store: EdgeStore, acknowledged: dict[str, int]) -> None:
    """Every acknowledged document is there in that revision or the next, whole, and once."""
    found = await texts(store)
    by_document = defaultdict(set)
    for text in found:
        content_hash = text.split(" ")[0]
        by_document[content_hash.split("-")[0]].add(content_hash)
    current = []
    for one, hashes in by_document.items():
        assert len(hashes) == 1, f"{one} is there in several revisions"
        revision = int(hashes.pop().split("-")[1])
        assert revision >= acknowledged.get(one, 0), f"{one} lost an acknowledged revision"
        assert revision <= acknowledged.get(one, 0) + 1
        current.append(document(one, str(revision), chunks=1 + revision % 7))
    assert not acknowledged.keys() - by_document.keys(), "an acknowledged document is gone"
    assert found == expected(*current)
    facts = await store.get_collection(KEY)
    assert (facts.documents, facts.chunks) == (len(current), len(found))


@A_WHILE
@pytest.mark.parametrize("merge_points", MERGE_POINTS)
async def test_the_engine_is_killed_at_random_moments(tmp_path, merge_points):
    store = EdgeStore("", tmp_path, merge_points=merge_points)
    await store.start()
    await store.create_collection(collection(), 10)
    await put(store, document("d0", "1", chunks=2))
    acknowledged = {"d0": 1}
    rng = random.Random(20261121)
    try:
        for round_ in range(ROUNDS):
            writing = asyncio.create_task(write(store, round_, acknowledged))
            await asyncio.sleep(rng.uniform(0.02, 0.6))
            killed = store.process_id
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            with pytest.raises(Unavailable):
                await writing
            await check_whole(store, acknowledged)
            assert store.process_id != killed
        assert sum(acknowledged.values()) > 1
    finally:
        await store.aclose()


@A_WHILE
@pytest.mark.parametrize("merge_points", MERGE_POINTS)
async def test_the_service_is_killed_at_random_moments(tmp_path, merge_points):
    rng = random.Random(5)
    acknowledged: dict[str, int] = {}
    for _ in range(ROUNDS):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.service.retrieve.writer", str(tmp_path), "edge",
            str(merge_points),
            cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert writer.stdout is not None
        engine = int(await writer.stdout.readline())
        first = await writer.stdout.readline()
        await asyncio.sleep(rng.uniform(0.0, 0.5))
        writer.kill()
        lines = [first, *(await writer.stdout.read()).splitlines()]
        await writer.wait()
        for line in lines:
            if len(parts := line.split()) == 2:
                acknowledged[parts[0].decode()] = int(parts[1])
        await gone(engine)
        store = EdgeStore("", tmp_path, merge_points=merge_points)
        await store.start()
        try:
            # The writer may have been killed between an acknowledgement and its line.
            stored = await store.list_documents(KEY, "", 100)
            await check_whole(store, acknowledged)
            acknowledged = {one.id: int(one.content_hash.split("-")[1]) for one in stored}
        finally:
            await store.aclose()


async def gone(process_id: int, seconds: float = 5.0) -> None:
    """Wait until a process has ended."""
    end = time.monotonic() + seconds
    while psutil.pid_exists(process_id):
        try:
            if psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        assert time.monotonic() < end, "the engine outlived the service"
        await asyncio.sleep(0.02)


async def test_orphans_of_a_killed_engine_leave_the_shard(tmp_path):
    store = EdgeStore("", tmp_path)
    await store.start()
    try:
        await store.create_collection(collection(), 10)
        await put(store, document("a"))
        big = document("b", chunks=60)
        await store.stage(KEY, [("token", big)], chunks_of("token", big))
        killed = store.process_id
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await gone(killed)
        assert await texts(store) == expected(document("a"))
        await put(store, document("c"))  # flushes, and so forgets the orphans
    finally:
        await store.aclose()
    index = open_index(tmp_path / "retrieve", 4)
    try:
        state = index._state(KEY)
        assert state.hidden == {}
        assert index._shard(state).count() == 6
        assert index._catalog.orphans(state.row.id) == {}
    finally:
        index.close()


async def next_engine(store: EdgeStore, killed: int, seconds: float = 10.0) -> None:
    """Wait until another engine works."""
    end = time.monotonic() + seconds
    while store.process_id in (None, killed):
        assert time.monotonic() < end, "no engine came back"
        await asyncio.sleep(0.02)


async def test_the_first_call_after_a_kill_may_be_a_deletion(tmp_path):
    store = EdgeStore("", tmp_path)
    await store.start()
    try:
        await store.create_collection(collection(), 10)
        await put(store, document("a"), document("b"))
        torn = document("c", chunks=4)
        await store.stage(KEY, [("token", torn)], chunks_of("token", torn))
        killed = store.process_id
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await gone(killed)
        await next_engine(store, killed)
        assert await store.delete_document(KEY, "b") == 3
        assert await texts(store) == expected(document("a"))
    finally:
        await store.aclose()


async def test_searches_are_answered_while_documents_are_written(tmp_path):
    store = EdgeStore("", tmp_path)
    await store.start()
    try:
        await store.create_collection(collection(), 10)
        await put(store, document("a"))

        async def write_much() -> None:
            for n in range(40):
                await put(store, document(f"w{n}", chunks=90))

        writing = asyncio.create_task(write_much())
        slowest = 0.0
        while not writing.done():
            started = time.monotonic()
            await texts(store, filter=None)
            slowest = max(slowest, time.monotonic() - started)
            await asyncio.sleep(0.005)
        await writing
        assert slowest < 2.0
    finally:
        await store.aclose()


async def test_availability_tells_of_long_outages_only(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "_PATIENCE_SECONDS", 1.0)
    store = EdgeStore("", tmp_path)
    await store.start()
    seen: asyncio.Queue[bool] = asyncio.Queue()

    async def watch() -> None:
        async for available in store.availability():
            seen.put_nowait(available)

    watching = asyncio.create_task(watch())
    try:
        assert store.process_id is not None
        os.kill(store.process_id, signal.SIGKILL)
        await gone(store.process_id)
        await asyncio.sleep(0.05)
        await store.list_collections("tenant", "", 1)
        assert seen.empty()
        monkeypatch.setattr(client, "_MODULE", "no.such.module")
        assert store.process_id is not None
        os.kill(store.process_id, signal.SIGKILL)
        assert await seen.get() is False
        with pytest.raises(Unavailable) as caught:
            await store.list_collections("tenant", "", 1)
        assert caught.value.reason == "ENGINE_UNAVAILABLE"
        monkeypatch.undo()
        assert await seen.get() is True
        assert list(await store.list_collections("tenant", "", 1)) == []
    finally:
        watching.cancel()
        await store.aclose()


async def test_a_broken_catalogue_is_told_by_name(tmp_path):
    (tmp_path / "retrieve").mkdir()
    catalogue = tmp_path / "retrieve" / "catalog.sqlite"
    catalogue.write_text("this is no database\n" * 300)
    store = EdgeStore("", tmp_path)
    try:
        with pytest.raises(FailedPrecondition) as caught:
            await store.start()
    finally:
        await store.aclose()
    assert caught.value.reason == "DATA_UNREADABLE"
    assert str(catalogue) in caught.value.message


def test_a_full_disk_is_told_and_got_over(tmp_path, monkeypatch):
    index = open_index(tmp_path / "retrieve", 4)
    database = index._catalog._db
    big = replace(collection(), description="x" * 100_000)
    call = (1, "create_collection", (big, 10))
    try:
        database.execute("PRAGMA max_page_count = 1")  # the least: what it has
        assert _carry_out(index, call)[2].reason == "ENGINE_FAILED"
        monkeypatch.setattr("services.retrieve.adapters.index.LEAST_FREE_BYTES", 1 << 60)
        failure = _carry_out(index, call)[2]
        assert (failure.code, failure.reason) == ("UNAVAILABLE", "ENGINE_UNAVAILABLE")
        assert not database.in_transaction
        database.execute("PRAGMA max_page_count = 1000000")
        assert _carry_out(index, call)[1] is True
    finally:
        index.close()


async def test_two_services_do_not_share_a_folder(tmp_path):
    first, second = EdgeStore("", tmp_path), EdgeStore("", tmp_path)
    await first.start()
    try:
        with pytest.raises(FailedPrecondition) as caught:
            await second.start()
        assert caught.value.reason == "DATA_IN_USE"
    finally:
        await second.aclose()
        await first.aclose()
    third = EdgeStore("", tmp_path)
    await third.start()
    await third.aclose()
