"""Tokens that were revoked before they expired, known to every replica within a second.

`ragmesh token revoke` writes a row; each gateway looks at the table twice a second and keeps what
it holds in memory, so that a request asks no database. A row goes when its token has expired: the
table cannot grow for ever.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from gateway.store.revocations import RevocationStore
from services.runtime.errors import RagmeshError

log = logging.getLogger(__name__)

POLL_SECONDS = 0.4
"""Between two looks: what is written is refused everywhere within a second."""
PURGE_SECONDS = 3600.0


class Revocations:
    """The revoked tokens, as (consumer, jti)."""

    def __init__(
        self,
        store: RevocationStore | None = None,
        *,
        interval: float = POLL_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Args:
        store: where they are kept; None knows of none.
        interval: seconds between two looks.
        """
        self._store = store
        self._interval = interval
        self._now = now
        self._revoked: frozenset[tuple[str, str]] = frozenset()
        self._version: tuple[int, ...] | None = None
        self._purge_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._reachable = True

    def __contains__(self, token: tuple[str, str]) -> bool:
        return token in self._revoked

    async def start(self) -> None:
        """Read them, and keep looking.

        Raises:
            Unavailable: STORE_UNAVAILABLE: no token may be trusted before the table was read once.
        """
        if self._store is None:
            return
        await self.refresh()
        self._task = asyncio.create_task(self._follow())

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def refresh(self) -> None:
        """Look once.

        Raises:
            Unavailable: STORE_UNAVAILABLE.
        """
        if self._store is None:
            return
        if self._now() >= self._purge_at:
            await self._store.purge(self._now())
            self._purge_at = self._now() + PURGE_SECONDS
        version = await self._store.version()
        if version != self._version:
            self._revoked = await self._store.read()
            self._version = version

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.refresh()
            except RagmeshError as error:
                # What is known stays revoked; that nothing new is heard is an operator's matter.
                if self._reachable:
                    log.error("revocations are not followed", extra={"reason": error.reason})
                self._reachable = False
            else:
                if not self._reachable:
                    log.info("revocations are followed again")
                self._reachable = True
