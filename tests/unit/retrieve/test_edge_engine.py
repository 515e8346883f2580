"""Who waits for whom in the engine's process, and what its client keeps of its answers."""

import asyncio
import os
import socket
import threading
from typing import cast

import pytest
import uvloop

from services.retrieve.adapters.edge import files
from services.retrieve.adapters.edge.calls import Calls
from services.retrieve.adapters.edge.client import _Link
from services.retrieve.adapters.edge.engine import Engine
from services.retrieve.adapters.edge.facts import FactsCache
from services.retrieve.adapters.edge.files import copy_file, used_bytes
from services.retrieve.adapters.edge.frames import HEADER_BYTES, Frames, body_length, pack, unpack
from services.retrieve.adapters.edge.merging import Merging
from services.retrieve.adapters.sparse import ENGINE
from services.retrieve.ports import Collection, CollectionKey

READ = (1, "list_collections", ("tenant", "", 1, ()))
WRITE = (2, "delete_tenant", ("tenant",))


@pytest.fixture
def link():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(20)
        yield ours, theirs


def answer(ours: socket.socket) -> tuple[int, bool, object]:
    header = ours.recv(HEADER_BYTES, socket.MSG_WAITALL)
    number, fine, result = unpack(ours.recv(body_length(header), socket.MSG_WAITALL))
    return number, fine, result


def test_reads_are_answered_while_a_write_waits_for_the_disk(tmp_path, link):
    ours, theirs = link
    engine = Engine(tmp_path, theirs, 4, ENGINE, Merging())
    disk = threading.Event()
    seen: list[tuple[int, bool, object]] = []

    def client() -> None:
        ours.sendall(pack(WRITE) + pack(READ))
        seen.append(answer(ours))
        disk.set()  # only now the disk is done

    def write() -> None:
        disk.wait(20)

    asking = threading.Thread(target=client)
    asking.start()
    try:
        engine.wait(write)
    finally:
        asking.join()
    assert disk.is_set()
    assert seen == [(1, True, ())]
    assert engine.calls.get(0.0) == WRITE  # which had to wait
    engine.close()


def test_what_fails_in_the_disks_thread_fails_the_write(tmp_path, link):
    engine = Engine(tmp_path, link[1], 4, ENGINE, Merging())

    def fail() -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        engine.wait(fail)
    engine.close()


def test_a_write_has_its_turn_after_eight_reads(link):
    ours, theirs = link
    calls = Calls(theirs)
    ours.sendall(b"".join(pack(call) for call in (WRITE, *[READ] * 12)))
    order = [calls.get(0.0) for _ in range(13)]
    assert order.index(WRITE) == 8
    assert calls.get(0.0) is None
    ours.close()
    assert calls.get(20.0) is None
    assert calls.ended
    calls.close()


def test_a_read_behind_a_large_write_goes_first(link):
    ours, theirs = link
    calls = Calls(theirs)
    large = (3, "stage", (b"x" * 150_000,))  # more than is read at once, less than a socket holds
    ours.sendall(pack(large) + pack(READ))
    assert [calls.get(20.0) for _ in range(2)] == [READ, large]
    calls.close()


def test_whoever_waits_for_a_call_can_be_woken(link):
    calls = Calls(link[1])
    waking = threading.Timer(0.05, calls.wake)
    waking.start()
    assert calls.get(20.0) is None
    waking.join()
    assert not calls.ended
    calls.close()


def test_messages_come_out_of_pieces_of_any_size():
    stream = b"".join(map(pack, (WRITE, READ, READ)))
    for size in (1, 3, 7, len(stream)):
        frames = Frames()
        found = [
            message
            for start in range(0, len(stream), size)
            for message in frames.feed(stream[start : start + size])
        ]
        assert found == [WRITE, READ, READ]


def test_facts_are_kept_until_something_is_written():
    facts, key, other = FactsCache(), CollectionKey("t", "a"), CollectionKey("t", "b")
    one = cast(Collection, object())
    facts.put(key, (), one, facts.changes)
    facts.put(other, ("user:x",), one, facts.changes)
    assert facts.get(key, ()) is one
    assert facts.get(key, ("user:x",)) is None
    before = facts.changes
    facts.forget([key, ("token",)])
    assert facts.get(key, ()) is None
    assert facts.get(other, ("user:x",)) is one
    facts.put(key, (), one, before)  # asked for before the write
    assert facts.get(key, ()) is None
    facts.forget(["tenant"])
    assert facts.get(other, ("user:x",)) is None


def test_copies_keep_holes(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    with (source / "file").open("wb") as file:
        file.seek(1 << 24)
        file.write(b"x" * 5000)
        file.truncate(1 << 26)
    target = tmp_path / "target"
    target.mkdir()
    copy_file(source / "file", target / "file")
    assert (target / "file").read_bytes() == (source / "file").read_bytes()
    assert used_bytes(target) <= used_bytes(source) + 4096


def test_what_is_sent_to_an_engine_that_died_raises_nothing(link):
    async def send() -> None:
        ours, theirs = link
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: _Link(print), sock=ours.dup())
        theirs.shutdown(socket.SHUT_RDWR)
        await asyncio.wait_for(client.lost, 20)
        client.write(pack(READ))
        await client.drain()

    uvloop.run(send())  # whose transports raise where asyncio's are silent


def test_payloads_and_vectors_are_read_ahead_where_memory_is_free(tmp_path, monkeypatch):
    (tmp_path / "payload_storage").mkdir()
    for name in ("payload_storage/page_0.dat", "matrix.dat", "links.bin"):
        (tmp_path / name).write_bytes(b"x" * 10_000)
    read: list[int] = []
    pread = os.pread

    def counted(descriptor, size, place):
        read.append(size)
        return pread(descriptor, size, place)

    monkeypatch.setattr(os, "pread", counted)
    files.read_ahead(tmp_path)
    assert read == [10_000, 10_000]  # not the links, which opening reads
    monkeypatch.setattr(files, "_available_bytes", lambda: 20_000)
    files.read_ahead(tmp_path)
    assert len(read) == 2
    files.read_ahead(tmp_path / "gone")
