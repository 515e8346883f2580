"""The engine's process: ``python -m services.retrieve.adapters.edge.engine FD PARENT ROOT ...``.

One thread reads calls from the socket and carries them out. Reads go before writes, but a write
gets its turn after so many reads, and is interrupted for others while it waits for the disk. It
ends when its parent does: by the socket's end, and on Linux also by signal.
"""

import fcntl
import gc
import itertools
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from services.retrieve.adapters.catalog import Catalog
from services.retrieve.adapters.edge.calls import READS, Call, Calls
from services.retrieve.adapters.edge.frames import pack
from services.retrieve.adapters.edge.merging import Merger, Merging
from services.retrieve.adapters.edge.shards import Shards
from services.retrieve.adapters.index import Index
from services.retrieve.adapters.lifeline import die_with
from services.retrieve.adapters.points import Wait, wait_here
from services.retrieve.adapters.sparse import ENGINE, with_sparse
from services.runtime.errors import FailedPrecondition, Internal, RagmeshError, Unavailable
from services.runtime.logs import configure_logs

log = logging.getLogger(__name__)

WRITES = frozenset(
    {
        "add_words", "create_collection", "delete_collection", "delete_document",
        "delete_tenant", "discard", "publish", "replace_collection", "replace_sparse",
        "set_profile", "stage",
    }
)  # fmt: skip
IDLE_SECONDS = 300.0
"""A shard that nobody used for so long is closed."""
QUIET_SECONDS = 0.05
"""After so long without a call there is time to close a collection for the next to be opened."""
LOCK_SECONDS = 5.0
SWITCH_SECONDS = 0.0005
"""After so long the thread that waits for the disk lets the one that answers go on."""


class Engine:
    """Carries out calls in one thread.

    A write that waits for the disk does so in another thread, and reads are answered meanwhile.
    They see what was there before, or after: an index waits only where its state is in order.
    """

    def __init__(
        self, root: Path, link: socket.socket, open_shards: int, sparse: str, merging: Merging
    ) -> None:
        self._link = link
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._answering = False
        self.calls = Calls(link)
        self.merger = Merger(merging, wait=self.wait, wake=self.calls.wake)
        self._shards = _shards(root, open_shards, self.wait)
        self._shards.attendant = self.merger
        self.index = _index(root, self._shards, open_shards, sparse, self.wait)

    def wait(self, task: Callable[[], None] | None) -> None:
        """Have something done in the disk's thread; answer reads until then.

        With None, answer the reads that are there.
        """
        if self._answering:  # on behalf of a read: the others have waited no longer than it has
            if task is not None:
                task()
            return
        self._answering = True
        try:
            future = None if task is None else self._disk.submit(task)
            if future is not None:
                future.add_done_callback(lambda _: self.calls.wake())
            while (call := self.calls.read(future)) is not None:
                self._answer(call)
        finally:
            self._answering = False
        if future is not None:
            future.result()

    def work(self) -> None:
        """Carry out calls until the other end is gone."""
        for turn in itertools.count():
            crowded = self._shards.crowded
            pause = self.merger.pause
            call = self.calls.get(
                timeout=QUIET_SECONDS if crowded else IDLE_SECONDS if pause is None else pause
            )
            if self.calls.ended:
                return
            try:
                if call is not None:
                    self._answer(call)
                elif crowded:
                    self._shards.close_oldest()
                elif not self.merger.busy:
                    self.index.close_idle(IDLE_SECONDS)
                if turn % 10_000 == 0:
                    self.index.close_idle(IDLE_SECONDS)
                self.merger.tend()
            except OSError:
                return  # the parent is gone

    def _answer(self, call: Call) -> None:
        number, method, _ = call
        if method == "stats":
            answer: tuple[int, bool, Any] = number, True, self._stats()
        else:
            answer = _carry_out(self.index, call)
        self._link.sendall(pack(answer))

    def _stats(self) -> dict[str, float]:
        """Gauges for the metrics."""
        return {
            **self.index.stats(),
            **asdict(self.merger.counts),
            "delta_points": self._shards.delta_points(),
            "merging": self.merger.busy,
        }

    def close(self) -> None:
        """Close everything, durably."""
        self._answering = True  # nobody is there to be answered
        self.index.close()
        self._disk.shutdown()
        self.calls.close()


def main(arguments: Sequence[str]) -> None:
    descriptor, parent, root, open_shards, sparse, merge_points, merge_threads = arguments
    die_with(int(parent))
    # Ctrl-C reaches the whole group; the servicer drains first and then closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # It shares the servicer's stderr, and so its promise: JSON lines without what users wrote.
    configure_logs("retrieve", "INFO")
    sys.setswitchinterval(SWITCH_SECONDS)
    merging = Merging(int(merge_points), int(merge_threads))
    with socket.socket(fileno=int(descriptor)) as link:
        try:
            lock = _own(Path(root))
            engine = Engine(Path(root), link, int(open_shards), sparse, merging)
        except RagmeshError as error:
            link.sendall(pack((0, False, error)))
            return
        gc.collect()
        gc.freeze()  # modules live as long as the process; looking through them takes 20 to 30 ms
        link.sendall(pack((0, True, None)))  # ready
        try:
            engine.work()
        finally:
            engine.close()
            lock.close()


def open_index(root: Path, open_shards: int, sparse: str = ENGINE) -> Index:
    """The index of a data folder, which it makes where there is none; it merges nothing."""
    return _index(root, _shards(root, open_shards), open_shards, sparse, wait_here)


def _shards(root: Path, limit: int, wait: Wait = wait_here) -> Shards:
    (root / "shards").mkdir(parents=True, exist_ok=True)
    return Shards(root / "shards", limit, wait)


def _index(root: Path, shards: Shards, open_shards: int, sparse: str, wait: Wait) -> Index:
    arms = with_sparse(sparse, shards, root, open_shards)
    return Index(Catalog(root / "catalog.sqlite"), arms, root=root, wait=wait)


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


if __name__ == "__main__":
    main(sys.argv[1:])
