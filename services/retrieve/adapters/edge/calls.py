"""The calls that wait for the engine: read from the socket, reads before writes."""

import select
import socket
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from services.retrieve.adapters.edge.frames import Frames

READS = frozenset(
    {
        "check_documents", "get_collection", "get_document", "list_chunks", "list_collections",
        "list_documents", "read_document", "sample", "scan", "search", "stats", "tenant_contents",
        "term_weights",
    }
)  # fmt: skip
READS_PER_WRITE = 8
"""A waiting write is carried out after at most so many reads."""
_PIECE_BYTES = 65_536

Call = tuple[int, str, Sequence[Any]]


class Calls:
    """Calls that wait. Belongs to the thread that carries them out, but for `wake`.

    That thread reads the socket itself: the engine holds the GIL, so another could read nothing
    while it works, and would cost each search two switches between threads.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._frames = Frames()
        self._reads: deque[Call] = deque()
        self._writes: deque[Call] = deque()
        self._reads_since_write = 0
        self._woken = False
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        self._poll = select.poll()
        self._poll.register(link, select.POLLIN)
        self._poll.register(self._bell, select.POLLIN)
        self.ended = False
        """Whether no more calls come."""

    def close(self) -> None:
        self._bell.close()
        self._ringer.close()

    def wake(self) -> None:
        """Have whoever waits for a call look up. Any thread may."""
        with suppress(OSError):  # it rings already, or nobody is left to hear it
            self._ringer.send(b"\0")

    def get(self, timeout: float) -> Call | None:
        """The next call; None after `timeout` seconds without one, when woken, or at the end."""
        while not (self._reads or self._writes or self.ended or self._woken):
            if not self._look(timeout):
                break
        if self._writes:
            self._catch_up()  # a read may have come behind it
        self._woken = False
        if self.ended:
            return None
        if self._writes and (self._reads_since_write >= READS_PER_WRITE or not self._reads):
            self._reads_since_write = 0
            return self._writes.popleft()
        self._reads_since_write += 1
        return self._reads.popleft() if self._reads else None

    def read(self, task: Future[None] | None) -> Call | None:
        """The next read; None when none waits and the task is done, or there is no task."""
        if task is None and not self._reads:
            self._catch_up()
        while not self._reads:
            if task is None or task.done():
                return None
            self._look(None)
        return self._reads.popleft()

    def _catch_up(self) -> None:
        """Take all that is there."""
        while self._look(0.0):
            pass

    def _look(self, timeout: float | None) -> bool:
        """Take what comes; whether something did within so many seconds."""
        ready = self._poll.poll(None if timeout is None else timeout * 1000)
        for descriptor, _ in ready:
            if descriptor == self._bell.fileno():
                self._woken = True
                self._bell.recv(_PIECE_BYTES)
            else:
                self._receive()
        return bool(ready)

    def _receive(self) -> None:
        try:
            piece = self._link.recv(_PIECE_BYTES)
        except ConnectionError:
            piece = b""
        if not piece:
            self.ended = True
            self._poll.unregister(self._link)
        for call in self._frames.feed(piece):
            (self._reads if call[1] in READS else self._writes).append(call)
