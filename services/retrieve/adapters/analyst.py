"""Analysis in its own process: ``python -m services.retrieve.adapters.analyst FD PARENT NAME``.

Analysing what is indexed takes most of the Python that ingest needs. In the service's process it
would take the interpreter's lock from searches and health checks. Questions are analysed there
nevertheless: each takes less time than asking for it.
"""

import asyncio
import logging
import os
import pkgutil
import signal
import socket
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgpack  # type: ignore[import-untyped]

from services.retrieve import analysis
from services.retrieve.adapters.lifeline import die_with
from services.retrieve.analysis import Analysis
from services.retrieve.ports import Analyzer, SparseVector
from services.runtime.logs import configure_logs

log = logging.getLogger(__name__)

_MODULE = "services.retrieve.adapters.analyst"
_HEADER = struct.Struct("<I")
_NICE = 10
_TEXTS = 100
"""Of one call, so that no stream waits long for another's."""
_ATTEMPTS = 2
_STOP_SECONDS = 5.0


class Analyst(Analysis):
    """Has documents analysed by another process, and does it itself where that one fails."""

    def __init__(self, analyzer: Analyzer, name: str) -> None:
        """Args:
        analyzer: for questions.
        name: its class, as in the registry.
        """
        super().__init__(analyzer)
        self._name = name
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._exchanges: set[asyncio.Task[Any]] = set()

    @property
    def process_id(self) -> int | None:
        """The running process's."""
        return self._process.pid if self._process and self._link else None

    async def start(self) -> None:
        await super().start()
        self._begin("lengths", [()])  # it is there when it is needed

    async def aclose(self) -> None:
        for exchange in self._exchanges:
            exchange.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        await self._drop()

    async def documents(
        self,
        texts: Sequence[str],
        languages: Sequence[str],
        averages: Mapping[str, Sequence[float]],
    ) -> list[SparseVector]:
        made: list[SparseVector] = []
        for start in range(0, len(texts), _TEXTS):
            part = slice(start, start + _TEXTS)
            found = await self._ask("documents", texts[part], languages[part], averages)
            if found is None:
                made += await super().documents(texts[part], languages[part], averages)
            else:
                made += [SparseVector(*one) for one in found]
        return made

    async def lengths(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        made: list[tuple[float, ...]] = []
        for start in range(0, len(texts), _TEXTS):
            some = texts[start : start + _TEXTS]
            found = await self._ask("lengths", some)
            made += await super().lengths(some) if found is None else found
        return made

    async def _ask(self, method: str, *arguments: Any) -> Any:
        """The answer; None where there is none."""
        # A caller who leaves does not take away half an answer from whoever asks next.
        return await asyncio.shield(self._begin(method, arguments))

    def _begin(self, method: str, arguments: Sequence[Any]) -> asyncio.Task[Any]:
        exchange = asyncio.create_task(self._exchange(method, arguments))
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._exchanges.discard)
        return exchange

    async def _exchange(self, method: str, arguments: Sequence[Any]) -> Any:
        async with self._turn:
            for _ in range(_ATTEMPTS):
                try:
                    reader, writer = self._link or await self._launch()
                    writer.write(_pack((method, arguments)))
                    await writer.drain()
                    (size,) = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                    return _unpack(await reader.readexactly(size))
                except (OSError, asyncio.IncompleteReadError):
                    log.warning("the analyst's process died")
                    await self._drop()
                except asyncio.CancelledError:
                    await self._drop()
                    raise
        return None

    async def _launch(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", _MODULE, str(theirs.fileno()), str(os.getpid()), self._name,
                pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        self._link = await asyncio.open_connection(sock=ours)
        return self._link

    async def _drop(self) -> None:
        """Let go of the process; its end of the link is the sign to leave."""
        if self._link is not None:
            self._link[1].close()
            self._link = None
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


def main(arguments: Sequence[str]) -> None:
    descriptor, parent, name = arguments
    die_with(int(parent))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; the service decides
    configure_logs("retrieve", "INFO")
    os.nice(_NICE)
    analyzer: Analyzer = pkgutil.resolve_name(name)()
    analyzer.start()
    methods: dict[str, Callable[..., Any]] = {"documents": _documents, "lengths": analysis.lengths}
    with socket.socket(fileno=int(descriptor)) as link, link.makefile("rb") as stream:
        while len(header := stream.read(_HEADER.size)) == _HEADER.size:
            body = stream.read(_HEADER.unpack(header)[0])
            method, given = _unpack(body)
            try:
                answer = methods[method](analyzer, *given)
            except Exception:  # the service then does it itself, and fails as it would have
                log.exception("analysing failed")
                answer = None
            try:
                link.sendall(_pack(answer))
            except OSError:
                return  # the service is gone


def _documents(analyzer: Analyzer, *given: Any) -> list[tuple[Any, Any]]:
    return [(one.indices, one.values) for one in analysis.documents(analyzer, *given)]


def _pack(message: Any) -> bytes:
    body = bytes(msgpack.packb(message))
    return _HEADER.pack(len(body)) + body


def _unpack(body: bytes) -> Any:
    return msgpack.unpackb(body, use_list=False)


if __name__ == "__main__":
    main(sys.argv[1:])
