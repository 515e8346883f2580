"""The store: an index in one thread of this process, and the lock on its folder."""

import logging
import sqlite3
from pathlib import Path
from typing import IO, Any

from services.retrieve.adapters.catalog import Catalog
from services.retrieve.adapters.faiss.shards import FaissShards
from services.retrieve.adapters.index import Index
from services.retrieve.adapters.owning import own
from services.retrieve.adapters.sparse import ENGINE, with_sparse
from services.retrieve.adapters.store import InProcessStore
from services.runtime.errors import Internal, Unavailable

log = logging.getLogger(__name__)

LOCAL = "local"
"""The location that means a folder under the data folder."""


class FaissStore(InProcessStore):
    """Collections of up to some 100,000 chunks, in this process's memory while they are open."""

    def __init__(
        self, location: str, data: Path, *, open_shards: int = 64, sparse: str = ENGINE
    ) -> None:
        """Args:
        location: what follows ``faiss://``: a folder; ``local`` or nothing for ``faiss`` under
            `data`.
        data: where everything durable lives.
        open_shards: how many collections are open, and so in memory, at once.
        sparse: where the sparse arm lives.
        """
        self._root = data / "faiss" if location in ("", LOCAL) else Path(location)
        self._open_shards = open_shards
        self._sparse = sparse
        self._lock: IO[bytes] | None = None
        super().__init__("faiss", self._make)

    def _make(self) -> Index:
        self._lock = own(self._root)
        shards = FaissShards(self._root / "shards", self._open_shards)
        arms = with_sparse(self._sparse, shards, self._root, self._open_shards)
        return Index(Catalog(self._root / "catalog.sqlite"), arms, root=self._root)

    async def aclose(self) -> None:
        await super().aclose()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return await super()._call(method, *arguments)
        except (sqlite3.Error, OSError) as error:
            log.exception("a call of the index failed: %s", method)
            if self._index is not None and self._index.disk_is_full():
                raise Unavailable(
                    "ENGINE_UNAVAILABLE",
                    "There is no space left for the index.",
                    retry_after=30.0,
                ) from error
            raise Internal("ENGINE_FAILED", "The engine failed.") from error
