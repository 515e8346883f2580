"""One connection to Qdrant: calls with a time limit, and errors as ours."""

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from qdrant_client import AsyncQdrantClient, models

from services.retrieve.adapters.qdrant.errors import MissingPoint, translated, unreachable
from services.retrieve.adapters.qdrant.options import Address, QdrantOptions
from services.runtime.deadlines import call_remaining
from services.runtime.errors import DeadlineExceeded, FailedPrecondition

log = logging.getLogger(__name__)

OLDEST = (1, 19)
"""The first server that measures IDF over a part of a collection. Conditional writes (1.16) and
inserts only (1.17) came before it; an older server would drop what it does not know, silently."""

_UNTIMED = frozenset({"collection_exists", "get_collections", "info", "close"})
_MAX_SECONDS = 24 * 3600.0


class Connection(Protocol):
    """Calls of `AsyncQdrantClient` by name."""

    @property
    def local(self) -> bool:
        """Whether it is the client's local mode, which belongs to this process alone."""

    async def open(self) -> None:
        """Connect. Raises: Unavailable, or FailedPrecondition where trying again cannot help."""

    async def call(self, method: str, /, *arguments: Any, **named: Any) -> Any:
        """Carry out a method of the client.

        Raises:
            Unavailable: ENGINE_UNAVAILABLE, also where a write did not end in time.
            MissingPoint: as `errors` says.
        """

    async def close(self) -> None:
        """Let go of it."""


class Remote:
    """A server or cluster. The client's own retries are off: ours are in the gateway."""

    local = False

    def __init__(self, address: Address, options: QdrantOptions) -> None:
        self._address = address
        self._options = options
        self._client: AsyncQdrantClient | None = None

    async def open(self) -> None:
        if self._client is None:
            self._client = await asyncio.to_thread(self._connect)
        info: models.VersionInfo = await self.call("info")
        _check_version(info.version)

    def _connect(self) -> AsyncQdrantClient:
        """Make the client; reads certificates, so it blocks."""
        address, options = self._address, self._options
        ca = _read_ca(options.ca)
        channel: dict[str, Any] = {"grpc.enable_retries": 0, "grpc.keepalive_time_ms": 60_000}
        rest: dict[str, Any] = {}
        if ca is not None and address.tls:
            channel["root_certificates"] = ca
            if not address.grpc:
                rest["verify"] = str(options.ca)
        # The key is a header of ours: as `api_key` the client would warn on a plain connection,
        # which is the operator's decision, and ask for TLS by itself.
        headers = {"api-key": options.api_key} if options.api_key else None
        return AsyncQdrantClient(
            url=address.url,
            grpc_port=address.port,
            prefer_grpc=address.grpc,
            timeout=math.ceil(options.timeout),
            headers=headers,
            grpc_options=channel,
            check_compatibility=False,
            **rest,
        )

    async def call(self, method: str, /, *arguments: Any, **named: Any) -> Any:
        if self._client is None:
            raise unreachable()
        left = call_remaining()
        seconds = min(self._options.timeout, _MAX_SECONDS if left is None else left)
        if seconds <= 0:
            raise DeadlineExceeded("DEADLINE_EXCEEDED", "The time allowed ran out.")
        if method not in _UNTIMED:
            named["timeout"] = math.ceil(seconds)  # the server's own limit has whole seconds
        try:
            async with asyncio.timeout(seconds):
                answer = await getattr(self._client, method)(*arguments, **named)
        except TimeoutError:
            raise unreachable() from None
        except Exception as error:
            ours = translated(error)
            if ours is error:
                raise
            log.debug("Qdrant refused %s", method, exc_info=True)
            raise ours from error
        return _finished(answer)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None


class Local:
    """The client's local mode, in one thread: it computes in Python and writes with SQLite."""

    local = True

    def __init__(self, root: Path | None) -> None:
        """Args:
        root: a folder; None keeps everything in memory.
        """
        self._root = root
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="qdrant-local")
        self._client: AsyncQdrantClient | None = None

    async def open(self) -> None:
        self._client = await self._run(self._open)

    def _open(self) -> AsyncQdrantClient:
        if self._root is None:
            return AsyncQdrantClient(":memory:")
        if (self._root / "catalog.sqlite").exists():
            raise FailedPrecondition(
                "DATA_TOO_OLD",
                f"{self._root} was written by an earlier layout, which this version does not read; "
                "move it away and ingest again.",
            )
        self._root.mkdir(parents=True, exist_ok=True)
        try:
            return AsyncQdrantClient(path=str(self._root))
        except RuntimeError as error:  # the client's word for a locked folder
            raise FailedPrecondition(
                "DATA_IN_USE",
                f"Another process works in {self._root}; stop it, or set RAGMESH_DATA or VECTOR_URL"
                " to another folder.",
            ) from error

    async def call(self, method: str, /, *arguments: Any, **named: Any) -> Any:
        client = self._client
        if client is None:
            raise unreachable()
        return await self._run(lambda: _drive(getattr(client, method), *arguments, **named))

    async def close(self) -> None:
        if self._client is not None:
            await self.call("close")
            self._client = None
        self._thread.shutdown()

    async def _run(self, function: Callable[[], Any]) -> Any:
        # Shielded: a caller that leaves must not end what others count on.
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, function))


def _drive(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Run a coroutine of local mode, which never waits for anything, without a loop."""
    try:
        method(*arguments, **named).send(None)
    except StopIteration as done:
        return _finished(done.value)
    except KeyError as error:
        raise MissingPoint from error
    raise RuntimeError("qdrant-client's local mode has begun to wait for something")


def _finished(answer: Any) -> Any:
    """The answer. A write that is accepted but not carried out in time counts as not done."""
    if isinstance(answer, models.UpdateResult) and answer.status != models.UpdateStatus.COMPLETED:
        raise unreachable()
    return answer


def _read_ca(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise FailedPrecondition(
            "VECTOR_CA_UNREADABLE", f"The certificates {path} (VECTOR_CA) cannot be read."
        ) from error


def _check_version(version: str) -> None:
    """Raises: FailedPrecondition ENGINE_TOO_OLD."""
    numbers = [
        int(part) for part in version.split("-", maxsplit=1)[0].split(".")[:2] if part.isdecimal()
    ]
    if tuple(numbers) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise FailedPrecondition(
            "ENGINE_TOO_OLD",
            f"The Qdrant at VECTOR_URL is version {version[:20]}; this version of ragmesh needs "
            f"{wanted} or later. Upgrade it, one minor version after another as Qdrant asks, or "
            "use VECTOR_URL=edge://.",
        )
