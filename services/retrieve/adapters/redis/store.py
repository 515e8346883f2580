"""The store: points in Redis, the catalogue beside this process, which owns both."""

import asyncio
import contextlib
import logging
import os
import sqlite3
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any

from services.retrieve.adapters.catalog import Catalog
from services.retrieve.adapters.index import Index
from services.retrieve.adapters.owning import own
from services.retrieve.adapters.redis.connection import Connection
from services.retrieve.adapters.redis.options import RedisOptions
from services.retrieve.adapters.redis.shards import RedisShards
from services.retrieve.adapters.store import InProcessStore
from services.runtime.errors import FailedPrecondition, Internal, RagmeshError, Unavailable

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
PROBE_SECONDS = 2.0
_MAX_WAIT_SECONDS = 10.0


class RedisStore(InProcessStore):
    """Collections whose points one Redis holds in memory, for one process of retrieve."""

    def __init__(self, url: str, data: Path, options: RedisOptions) -> None:
        """Args:
        url: as `Connection` takes it.
        data: the catalogue is in ``redis`` under it.
        options: how to reach the server, and what is asked of it.

        Raises:
            FailedPrecondition: VECTOR_URL_INVALID, VECTOR_CA_UNREADABLE.
        """
        self._root = data / "redis"
        self._connection = Connection(url, options)
        self._lock: IO[bytes] | None = None
        super().__init__("redis", self._make)

    def _make(self) -> Index:
        self._connection.check()
        if self._lock is None:
            self._lock = own(self._root)
        self._claim()
        catalog = Catalog(self._root / "catalog.sqlite")
        try:
            return Index(catalog, RedisShards(self._connection), root=self._root)
        except BaseException:
            catalog.close()
            raise

    def _claim(self) -> None:
        """Make sure that the keys under the prefix belong to this folder's catalogue.

        Raises:
            FailedPrecondition: DATA_IN_USE, DATA_TOO_NEW.
        """
        path, prefix = self._root / "owner", self._connection.prefix
        if not path.exists():
            _write_durably(path, uuid.uuid4().hex)
        mine = f"{FORMAT_VERSION} {path.read_text(encoding='ascii')}"
        self._connection.call("SETNX", f"{prefix}:owner", mine)
        found = self._connection.call("GET", f"{prefix}:owner").decode()
        if int(found.partition(" ")[0]) > FORMAT_VERSION:
            raise FailedPrecondition(
                "DATA_TOO_NEW",
                "A later version of ragmesh wrote to the Redis at VECTOR_URL; run it.",
            )
        if found != mine:
            raise FailedPrecondition(
                "DATA_IN_USE",
                f"The keys {prefix}:* in the Redis at VECTOR_URL belong to another catalogue than "
                f"the one in {self._root}. Restore that one, set RAGMESH_REDIS_PREFIX to another "
                f"prefix, or delete the keys and ingest again.",
            )

    async def start(self) -> None:
        """Return when Redis answers; waits for one that does not yet.

        Raises:
            FailedPrecondition: ENGINE_TOO_OLD, ENGINE_NOT_DURABLE, ENGINE_ACCESS_DENIED,
                DATA_IN_USE or DATA_TOO_NEW.
        """
        wait = 0.5
        while True:
            try:
                await super().start()
                return
            except Unavailable as error:
                log.warning("waiting for Redis", extra={"reason": error.reason})
                await asyncio.sleep(wait)
                wait = min(2 * wait, _MAX_WAIT_SECONDS)

    async def aclose(self) -> None:
        await super().aclose()
        self._connection.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def availability(self) -> AsyncIterator[bool]:
        up = True
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            answered = False
            with contextlib.suppress(RagmeshError):
                await self._run(self._connection.call, "PING")
                answered = True
            if answered != up:
                up = answered
                log.warning("Redis is back" if up else "Redis is away")
                yield up

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return await super()._call(method, *arguments)
        except (sqlite3.Error, OSError) as error:
            log.exception("a call of the index failed: %s", method)
            if self._index is not None and self._index.disk_is_full():
                raise Unavailable(
                    "ENGINE_UNAVAILABLE",
                    "There is no space left for the catalogue.",
                    retry_after=30.0,
                ) from error
            raise Internal("ENGINE_FAILED", "The engine failed.") from error


def _write_durably(path: Path, text: str) -> None:
    """Whole or not at all, also when the machine stops: Redis names it from now on."""
    draft = path.with_name(f"{path.name}.new")
    with draft.open("w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
