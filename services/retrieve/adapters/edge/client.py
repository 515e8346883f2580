"""The store as the servicer's process sees it: calls to an engine process that it looks after."""

import asyncio
import itertools
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from prometheus_client import Counter, Gauge

from services.retrieve.adapters.edge.calls import READS
from services.retrieve.adapters.edge.facts import EngineGauges, FactsCache
from services.retrieve.adapters.edge.frames import Frames, pack
from services.retrieve.adapters.sparse import ENGINE
from services.retrieve.adapters.store import IndexStore
from services.retrieve.ports import Attributes, Collection, CollectionKey
from services.runtime.errors import RagmeshError, Unavailable

log = logging.getLogger(__name__)

RESTARTS = Counter("ragmesh_retrieve_engine_restarts", "Times that the engine was started again.")
UP = Gauge("ragmesh_retrieve_engine_up", "Whether the engine's process answers: 1 or 0.")
IN_FLIGHT = Gauge("ragmesh_retrieve_engine_in_flight", "Calls that the engine has not answered.")

_MODULE = "services.retrieve.adapters.edge.engine"
_READY = 0
"""The number under which the engine says that it can work, or why not."""
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_EXIT_SECONDS = 2.0
# A call that comes while the engine restarts waits this long for it.
_PATIENCE_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_WATCH_SECONDS = 5.0


class EdgeStore(IndexStore):
    """Qdrant Edge in a process of its own, started again whenever it dies."""

    def __init__(
        self,
        location: str,
        data: Path,
        *,
        open_shards: int = 128,
        sparse: str = ENGINE,
        merge_points: int = 10_000,
        merge_threads: int = 1,
    ) -> None:
        """Args:
        location: what follows ``edge://``; empty for ``retrieve`` under `data`.
        data: where everything durable lives.
        open_shards: how many collections are open at once.
        sparse: where the sparse arm lives.
        merge_points: chunks of a collection that are searched without an index, about.
        merge_threads: threads that build an index.
        """
        self._root = Path(location) if location else data / "retrieve"
        self._options = [str(one) for one in (open_shards, sparse, merge_points, merge_threads)]
        self._facts = FactsCache()
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._link: _Link | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def backend(self) -> str:
        return "qdrant-edge"

    @property
    def process_id(self) -> int | None:
        """The running engine's process id."""
        return self._process.pid if self._process and self._up.is_set() else None

    async def start(self) -> None:
        link = await self._launch()
        self._supervisor = asyncio.create_task(self._supervise(link), name="edge-supervisor")
        self._watcher = asyncio.create_task(self._watch(), name="edge-gauges")

    async def aclose(self) -> None:
        self._closing = True
        if self._link is not None:
            self._link.close()  # its end is the sign to close the shards and leave
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        tasks = [task for task in (self._supervisor, self._watcher) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._lost()

    async def availability(self) -> AsyncIterator[bool]:
        while True:
            await self._down.wait()
            try:
                await asyncio.wait_for(self._up.wait(), _PATIENCE_SECONDS)
            except TimeoutError:
                yield False
                await self._up.wait()
                yield True

    async def _launch(self) -> "_Link":
        """Start the process and return once it can work."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", _MODULE,
                str(theirs.fileno()), str(os.getpid()), str(self._root), *self._options,
                pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        loop = asyncio.get_running_loop()
        ready = self._pending[_READY] = loop.create_future()
        _, link = await loop.create_connection(lambda: _Link(self._answered), sock=ours)
        self._link = link
        await asyncio.wait(
            {ready, link.lost}, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        self._pending.pop(_READY, None)
        if not ready.done():
            link.close()
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
            raise _unavailable("The engine does not start.")
        if refusal := ready.exception():
            link.close()
            await self._process.wait()
            raise refusal
        self._down.clear()
        self._up.set()
        UP.set(1)
        return link

    async def _supervise(self, link: "_Link") -> None:
        """When the process dies, start it again."""
        while True:
            await link.lost
            await self._exited()
            self._lost()
            if self._closing:
                return
            log.error("the engine's process died")
            pause = _FIRST_PAUSE
            while True:
                await asyncio.sleep(pause)
                RESTARTS.inc()
                try:
                    link = await self._launch()
                    break
                except RagmeshError:
                    log.exception("the engine does not start")
                    pause = min(pause * 2, _LONGEST_PAUSE)

    def _answered(self, answer: tuple[int, bool, Any]) -> None:
        """Hand an answer to who waits for it."""
        number, fine, result = answer
        future = self._pending.pop(number, None)
        IN_FLIGHT.set(len(self._pending))
        if future is None or future.done():
            return  # the caller has left
        if fine:
            future.set_result(result)
        else:
            future.set_exception(result)

    async def _exited(self) -> None:
        if self._process is not None and not self._closing:
            try:
                await asyncio.wait_for(self._process.wait(), _EXIT_SECONDS)
            except TimeoutError:
                self._process.kill()  # it closed the socket, yet lives
                await self._process.wait()

    def _lost(self) -> None:
        self._up.clear()
        self._down.set()
        UP.set(0)
        if self._link is not None:
            self._link.close()
        pending, self._pending = self._pending, {}
        IN_FLIGHT.set(0)
        for future in pending.values():
            if not future.done():
                future.set_exception(_unavailable("The engine was restarted; try again."))

    async def _watch(self) -> None:
        """Keep the gauges of what only the engine knows."""
        gauges = EngineGauges()
        while True:
            with suppress(RagmeshError):
                gauges.show(await self._ask("stats", ()))
            await asyncio.sleep(_WATCH_SECONDS)

    async def get_collection(self, key: CollectionKey, attributes: Attributes = ()) -> Collection:
        known = self._facts.get(key, attributes)
        if known is not None and self._up.is_set():
            return known
        changes = self._facts.changes
        collection = await super().get_collection(key, attributes)
        self._facts.put(key, attributes, collection, changes)
        return collection

    async def _call(self, method: str, *arguments: Any) -> Any:
        if method in READS:
            return await self._call_engine(method, arguments)
        # All that is written passes here. Facts that were read before the end of a write may be
        # of the time before it, so they are forgotten then.
        try:
            return await self._call_engine(method, arguments)
        finally:
            if method != "stage":  # which changes nothing that is seen
                self._facts.forget(arguments)

    async def _call_engine(self, method: str, arguments: Sequence[Any]) -> Any:
        try:
            return await self._ask(method, arguments)
        except Unavailable:
            # A search must not fail because the engine died under another: what only reads is
            # asked of the new engine once more.
            if method not in READS:
                raise
            return await self._ask(method, arguments)

    async def _ask(self, method: str, arguments: Sequence[Any]) -> Any:
        if not self._up.is_set():
            try:
                await asyncio.wait_for(self._up.wait(), _PATIENCE_SECONDS)
            except TimeoutError:
                raise _unavailable("The engine is not running; it is being started.") from None
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        number = self._send(method, arguments)
        self._pending[number] = future
        IN_FLIGHT.set(len(self._pending))
        await cast(_Link, self._link).drain()
        return await future

    def _send(self, method: str, arguments: Sequence[Any]) -> int:
        number = next(self._numbers)
        cast(_Link, self._link).write(pack((number, method, arguments)))
        return number

    def discard(self, key: CollectionKey, tokens: Sequence[str]) -> None:
        if tokens and self._up.is_set():  # a new process knows nothing of them
            self._send("discard", (key, tokens))


class _Link(asyncio.Protocol):
    """Our end of the socket. Answers are handed out as they arrive: a task that reads a stream
    would have to be woken first."""

    def __init__(self, take: Callable[[tuple[int, bool, Any]], None]) -> None:
        self._take = take
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the other end is gone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for answer in self._frames.feed(data):
            self._take(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def write(self, frame: bytes) -> None:
        """Send a frame; nothing happens once the other end is gone, which the supervisor tells
        everybody who waits for an answer."""
        transport = cast(asyncio.Transport, self._transport)
        if not transport.is_closing():
            transport.write(frame)

    async def drain(self) -> None:
        """Wait while the engine is far behind."""
        if not self._writable.is_set():
            await self._writable.wait()

    def close(self) -> None:
        cast(asyncio.Transport, self._transport).close()


def _unavailable(message: str) -> Unavailable:
    return Unavailable("ENGINE_UNAVAILABLE", message, retry_after=1.0)
