"""The engine's process: ``python -m ...adapters.edge.engine FD PARENT ROOT SHARDS SPARSE``.

One thread reads calls from the socket, one carries them out. Reads go before writes, but a write
gets its turn after so many reads. It ends when its parent does: by the socket's end, and on Linux
also by signal.
"""

import ctypes
import fcntl
import itertools
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from services.retrieve.adapters.catalog import Catalog
from services.retrieve.adapters.edge.frames import HEADER_BYTES, body_length, pack, unpack
from services.retrieve.adapters.edge.shards import Shards
from services.retrieve.adapters.index import Index
from services.retrieve.adapters.sparse import ENGINE, with_sparse
from services.runtime.errors import FailedPrecondition, Internal, RagmeshError, Unavailable
from services.runtime.logs import configure_logs

log = logging.getLogger(__name__)

READS = frozenset(
    {
        "check_documents", "get_collection", "get_document", "list_chunks", "list_collections",
        "list_documents", "read_document", "sample", "scan", "search", "stats", "tenant_contents",
        "term_weights",
    }
)  # fmt: skip
WRITES = frozenset(
    {
        "add_words", "create_collection", "delete_collection", "delete_document",
        "delete_tenant", "discard", "publish", "replace_collection", "replace_sparse",
        "set_profile", "stage",
    }
)  # fmt: skip
READS_PER_WRITE = 8
"""A waiting write is carried out after at most so many reads."""
IDLE_SECONDS = 300.0
"""A shard that nobody used for so long is closed."""
LOCK_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1

Call = tuple[int, str, Sequence[Any]]


class Calls:
    """Calls that wait, reads before writes."""

    def __init__(self) -> None:
        self._reads: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._writes: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._waiting = threading.Semaphore(0)
        self._reads_since_write = 0
        self.ended = False

    def put(self, call: Call) -> None:
        (self._reads if call[1] in READS else self._writes).put(call)
        self._waiting.release()

    def end(self) -> None:
        """No more calls come."""
        self.ended = True
        self._waiting.release()

    def get(self, timeout: float) -> Call | None:
        """The next call; None after `timeout` seconds without one, or at the end."""
        if not self._waiting.acquire(timeout=timeout) or self.ended:
            return None
        write_first = self._reads_since_write >= READS_PER_WRITE
        queues = (self._writes, self._reads) if write_first else (self._reads, self._writes)
        for one in queues:
            try:
                call = one.get_nowait()
            except queue.Empty:
                continue
            self._reads_since_write = self._reads_since_write + 1 if one is self._reads else 0
            return call
        return None


def main(arguments: Sequence[str]) -> None:
    descriptor, parent, root, open_shards, sparse = arguments
    _die_with(int(parent))
    # Ctrl-C reaches the whole group; the servicer drains first and then closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # It shares the servicer's stderr, and so its promise: JSON lines without what users wrote.
    configure_logs("retrieve", "INFO")
    with socket.socket(fileno=int(descriptor)) as link:
        try:
            lock = _own(Path(root))
            index = open_index(Path(root), int(open_shards), sparse)
        except RagmeshError as error:
            link.sendall(pack((0, False, error)))
            return
        calls = Calls()
        threading.Thread(target=_read, args=(link, calls), daemon=True).start()
        link.sendall(pack((0, True, None)))  # ready
        try:
            _work(index, calls, link)
        finally:
            index.close()
            lock.close()


def open_index(root: Path, open_shards: int, sparse: str = ENGINE) -> Index:
    """The index of a data folder, which it makes where there is none."""
    (root / "shards").mkdir(parents=True, exist_ok=True)
    shards = Shards(root / "shards", open_shards)
    arms = with_sparse(sparse, shards, root, open_shards)
    return Index(Catalog(root / "catalog.sqlite"), arms, root=root)


def _work(index: Index, calls: Calls, link: socket.socket) -> None:
    for turn in itertools.count():
        call = calls.get(timeout=IDLE_SECONDS)
        if calls.ended:
            return
        if call is None or turn % 10_000 == 0:
            index.close_idle(IDLE_SECONDS)
        if call is not None:
            try:
                link.sendall(pack(_carry_out(index, call)))
            except OSError:
                return  # the parent is gone


def _carry_out(index: Index, call: Call) -> tuple[int, bool, Any]:
    number, method, arguments = call
    try:
        if method not in READS and method not in WRITES:
            raise ValueError("an unknown method was called")
        return number, True, getattr(index, method)(*arguments)
    except RagmeshError as error:
        return number, False, error
    except Exception:
        log.exception("a call of the engine failed: %s", method)
        if index.disk_is_full():
            full = "There is no space left for the index."
            return number, False, Unavailable("ENGINE_UNAVAILABLE", full, retry_after=30.0)
        return number, False, Internal("ENGINE_FAILED", "The engine failed.")


def _read(link: socket.socket, calls: Calls) -> None:
    with link.makefile("rb") as stream:
        while len(header := stream.read(HEADER_BYTES)) == HEADER_BYTES:
            size = body_length(header)
            body = stream.read(size)
            if len(body) < size:
                break
            calls.put(unpack(body))
    calls.end()


def _own(root: Path) -> IO[bytes]:
    """Make sure that no other engine works in a folder; the lock ends with the process.

    Raises:
        FailedPrecondition: DATA_IN_USE, when another one does not leave within seconds.
    """
    root.mkdir(parents=True, exist_ok=True)
    lock = (root / "engine.lock").open("wb")
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise FailedPrecondition(
                    "DATA_IN_USE",
                    f"Another process works in {root}; stop it, or set RAGMESH_DATA or "
                    "VECTOR_URL to another folder.",
                ) from None
            time.sleep(0.05)  # the engine of a service that was just killed is on its way out
        else:
            return lock


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent dies, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(0)  # it died before that


if __name__ == "__main__":
    main(sys.argv[1:])
