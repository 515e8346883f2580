"""The audit log: rows that are inserted and read, chained by hashes.

Each row's hash covers its content and the hash of the row before, and numbers have no gaps: a row
that was changed, taken out or put in between breaks the chain, and `verify` says where. Rows cut
off at the end leave a shorter, unbroken chain: that shows against a number and hash noted
elsewhere, and every append writes them to the log of the process.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.store.tables import AuditEntry
from services.runtime.errors import RagmeshError, Unavailable

log = logging.getLogger("gateway.audit")

GENESIS = "0" * 64
"""What the first row follows."""
ATTEMPTS = 100
"""Of an append that other processes overtake."""
VERIFY_ROWS = 1000
"""Rows read at a time."""


@dataclass(frozen=True, slots=True)
class Event:
    """What is told of an action."""

    at: str
    """RFC 3339 in UTC, microseconds."""
    tenant: str
    """The tenant's id; empty for what the operator's command did."""
    tenant_name: str
    consumer: str
    subject: str
    token_id: str
    request_id: str
    action: str
    """``collection.delete``."""
    target: str
    outcome: str
    """``ok``, or the reason of the refusal in lower case."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row."""

    number: int
    event: Event
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a walk along the chain found."""

    entries: int
    head: str
    """Hash of the last row that fits."""
    broken_at: int | None = None
    """Number of the first row that does not fit; None when all do."""


EVENT_FIELDS = tuple(Event.__dataclass_fields__)
_COLUMNS = (
    AuditEntry.number,
    *(getattr(AuditEntry, name) for name in EVENT_FIELDS),
    AuditEntry.previous,
    AuditEntry.hash,
)


def moment(at: datetime | None = None) -> str:
    """A time as the log writes it: its texts sort as the times do."""
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds")


def hash_of(number: int, event: Event, previous: str) -> str:
    """SHA-256 hex over the row's content and the hash before."""
    content = json.dumps(
        [number, previous, *astuple(event)], ensure_ascii=False, separators=(",", ":")
    )
    return hashlib.sha256(content.encode()).hexdigest()


class AuditStore:
    """The table of the log. Every method raises Unavailable STORE_UNAVAILABLE."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._appending = asyncio.Lock()

    async def append(self, event: Event) -> Entry:
        """Add a row behind the last one.

        The number is the table's key, so of two processes that would follow the same row one is
        refused, and tries again behind the other.
        """
        head = select(AuditEntry.number, AuditEntry.hash).order_by(AuditEntry.number.desc())
        async with self._appending:
            for _ in range(ATTEMPTS):
                try:
                    async with self._engine.begin() as connection:
                        last = (await connection.execute(head.limit(1))).one_or_none()
                        number, previous = (last[0] + 1, last[1]) if last else (1, GENESIS)
                        made = Entry(number, event, previous, hash_of(number, event, previous))
                        await connection.execute(insert(AuditEntry).values(_row(made)))
                except IntegrityError:
                    continue
                except (SQLAlchemyError, OSError) as error:
                    raise _unavailable() from error
                log.info(
                    "audited",
                    extra={"number": number, "hash": made.hash, "action": event.action},
                )
                return made
        raise _unavailable()

    async def read(
        self,
        *,
        tenant: str | None = None,
        consumer: str | None = None,
        action: str | None = None,
        first: str | None = None,
        last: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[Entry]:
        """Rows, newest first.

        Args:
            tenant, consumer, action: exact; None for all.
            first, last: times as `moment` writes them, both included.
            before: only rows with a smaller number, for the next page.
        """
        query = select(*_COLUMNS).order_by(AuditEntry.number.desc()).limit(limit)
        for column, wanted in (
            (AuditEntry.tenant, tenant),
            (AuditEntry.consumer, consumer),
            (AuditEntry.action, action),
        ):
            if wanted is not None:
                query = query.where(column == wanted)
        if first is not None:
            query = query.where(AuditEntry.at >= first)
        if last is not None:
            query = query.where(AuditEntry.at <= last)
        if before is not None:
            query = query.where(AuditEntry.number < before)
        try:
            async with self._engine.connect() as connection:
                return [_entry(row) for row in (await connection.execute(query)).all()]
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable() from error

    async def verify(self) -> Verification:
        """Walk along the whole chain."""
        number, previous = 0, GENESIS
        while True:
            query = (
                select(*_COLUMNS)
                .where(AuditEntry.number > number)
                .order_by(AuditEntry.number)
                .limit(VERIFY_ROWS)
            )
            try:
                async with self._engine.connect() as connection:
                    rows = (await connection.execute(query)).all()
            except (SQLAlchemyError, OSError) as error:
                raise _unavailable() from error
            for entry in map(_entry, rows):
                expected = hash_of(number + 1, entry.event, previous)
                if (entry.number, entry.previous, entry.hash) != (number + 1, previous, expected):
                    return Verification(number, previous, broken_at=entry.number)
                number, previous = entry.number, entry.hash
            if len(rows) < VERIFY_ROWS:
                return Verification(number, previous)


def _row(entry: Entry) -> dict[str, object]:
    told = {name: getattr(entry.event, name) for name in EVENT_FIELDS}
    return {"number": entry.number, **told, "previous": entry.previous, "hash": entry.hash}


def _entry(row: Row[Any]) -> Entry:
    number, *told, previous, digest = tuple(row)
    return Entry(number, Event(*told), previous, digest)


def _unavailable() -> RagmeshError:
    return Unavailable("STORE_UNAVAILABLE", "The SQL store does not answer.", retry_after=1.0)
