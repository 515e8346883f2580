"""Conversations, by tenant and id. Each belongs to the user who began it: its answers may rest on
documents that others may not read, so for them it does not exist."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.store.tables import Session, Turn
from services.runtime.errors import AlreadyExists, NotFound, RagmeshError, Unavailable


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A question with its answer."""

    question: str
    answer: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A conversation, oldest turn first."""

    id: str
    created_at: datetime
    updated_at: datetime
    turns: list[StoredTurn]


class SessionStore:
    """What was asked and answered, for follow-up questions."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def history(
        self, tenant: str, session_id: str, subject: str, turns: int
    ) -> list[StoredTurn]:
        """The last so many turns, oldest first; none for a session that does not exist.

        Raises:
            AlreadyExists: SESSION_ID_TAKEN, by another user.
            Unavailable: STORE_UNAVAILABLE.
        """
        owner = select(Session.subject).where(Session.tenant == tenant, Session.id == session_id)
        query = (
            select(Turn.question, Turn.answer, Turn.created_at)
            .where(Turn.tenant == tenant, Turn.session_id == session_id)
            .order_by(Turn.number.desc())
            .limit(turns)
        )
        try:
            async with self._engine.connect() as connection:
                if (await connection.execute(owner)).scalar_one_or_none() not in (None, subject):
                    raise _taken()
                rows = (await connection.execute(query)).all()
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable() from error
        return [StoredTurn(row[0], row[1], _utc(row[2])) for row in reversed(rows)]

    async def append(
        self, tenant: str, session_id: str, subject: str, question: str, answer: str
    ) -> None:
        """Add a turn; the first one begins the session.

        Raises:
            AlreadyExists: SESSION_ID_TAKEN, by another user.
            Unavailable: STORE_UNAVAILABLE.
        """
        now = datetime.now(UTC)
        turn = {
            "tenant": tenant,
            "session_id": session_id,
            # PostgreSQL's text holds no NUL.
            "question": question.replace("\0", ""),
            "answer": answer.replace("\0", ""),
            "created_at": now,
        }
        session = {
            "tenant": tenant,
            "id": session_id,
            "subject": subject,
            "created_at": now,
            "updated_at": now,
        }
        touch = (
            update(Session)
            .where(Session.tenant == tenant, Session.id == session_id, Session.subject == subject)
            .values(updated_at=now)
        )
        try:
            async with self._engine.begin() as connection:
                if (await connection.execute(touch)).rowcount == 0:
                    try:
                        async with connection.begin_nested():
                            await connection.execute(insert(Session).values(session))
                    except IntegrityError:  # another request began it just now: whose?
                        if (await connection.execute(touch)).rowcount == 0:
                            raise _taken() from None
                await connection.execute(insert(Turn).values(turn))
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable() from error

    async def get(self, tenant: str, session_id: str, subject: str) -> StoredSession:
        """Raises:
        NotFound: SESSION_NOT_FOUND.
        Unavailable: STORE_UNAVAILABLE.
        """
        head = select(Session.created_at, Session.updated_at).where(
            Session.tenant == tenant, Session.id == session_id, Session.subject == subject
        )
        turns = (
            select(Turn.question, Turn.answer, Turn.created_at)
            .where(Turn.tenant == tenant, Turn.session_id == session_id)
            .order_by(Turn.number)
        )
        try:
            async with self._engine.connect() as connection:
                found = (await connection.execute(head)).one_or_none()
                if found is None:
                    raise _not_found(session_id)
                rows = (await connection.execute(turns)).all()
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable() from error
        stored = [StoredTurn(row[0], row[1], _utc(row[2])) for row in rows]
        return StoredSession(session_id, _utc(found[0]), _utc(found[1]), stored)

    async def count(self, tenant: str) -> tuple[int, int]:
        """Sessions and turns of a tenant.

        Raises:
            Unavailable: STORE_UNAVAILABLE.
        """
        sessions = select(func.count()).where(Session.tenant == tenant)
        turns = select(func.count()).where(Turn.tenant == tenant)
        try:
            async with self._engine.connect() as connection:
                found = [
                    (await connection.execute(each)).scalar_one() for each in (sessions, turns)
                ]
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable() from error
        return int(found[0]), int(found[1])

    async def delete_tenant(self, tenant: str) -> None:
        """Forget every session of a tenant.

        Raises:
            Unavailable: STORE_UNAVAILABLE.
        """
        try:
            async with self._engine.begin() as connection:
                await connection.execute(delete(Session).where(Session.tenant == tenant))
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable() from error

    async def delete(self, tenant: str, session_id: str, subject: str) -> None:
        """Forget a session with its turns.

        Raises:
            NotFound: SESSION_NOT_FOUND.
            Unavailable: STORE_UNAVAILABLE.
        """
        statement = delete(Session).where(
            Session.tenant == tenant, Session.id == session_id, Session.subject == subject
        )
        try:
            async with self._engine.begin() as connection:
                if (await connection.execute(statement)).rowcount == 0:
                    raise _not_found(session_id)
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable() from error


def _taken() -> RagmeshError:
    return AlreadyExists(
        "SESSION_ID_TAKEN", "The session_id is another user's; choose another.", field="session_id"
    )


def _not_found(session_id: str) -> RagmeshError:
    return NotFound("SESSION_NOT_FOUND", f"session '{session_id}' does not exist", field="id")


def _unavailable() -> RagmeshError:
    return Unavailable("STORE_UNAVAILABLE", "The SQL store does not answer.", retry_after=1.0)


def _utc(moment: datetime) -> datetime:
    """SQLite forgets the time zone; every time here is UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
