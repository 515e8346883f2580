"""Revoked tokens, by consumer and ``jti``, until they expire."""

from sqlalchemy import delete, func, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.store.tables import Revocation
from services.runtime.errors import Unavailable


class RevocationStore:
    """The table of revocations. Every method raises Unavailable STORE_UNAVAILABLE."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, consumer: str, token_id: str, *, expires_at: float, now: float) -> bool:
        """Revoke a token; answers whether that is news.

        Args:
            expires_at: seconds since the epoch after which the token is refused anyway.
        """
        row = {
            "consumer": consumer,
            "token_id": token_id,
            "expires_at": int(expires_at) + 1,
            "revoked_at": int(now),
        }
        try:
            async with self._engine.begin() as connection:
                await connection.execute(insert(Revocation).values(row))
        except IntegrityError:
            return False
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable() from error
        return True

    async def version(self) -> tuple[int, ...]:
        """Changes with every change of the table: its count, last number and sum of times. Numbers
        alone would miss a row that was committed after a later one, or took a dropped one's."""
        query = select(
            func.count(),
            func.coalesce(func.max(Revocation.number), 0),
            func.coalesce(func.sum(Revocation.revoked_at), 0),
        )
        try:
            async with self._engine.connect() as connection:
                found = (await connection.execute(query)).one()
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable() from error
        return tuple(int(number) for number in found)

    async def read(self) -> frozenset[tuple[str, str]]:
        """Every revoked token, as (consumer, jti)."""
        query = select(Revocation.consumer, Revocation.token_id)
        try:
            async with self._engine.connect() as connection:
                rows = (await connection.execute(query)).all()
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable() from error
        return frozenset((row[0], row[1]) for row in rows)

    async def purge(self, now: float, *, grace: float = 600.0) -> int:
        """Drop the rows of tokens that expired; answers how many.

        Args:
            grace: seconds past the expiry, beyond any clock skew allowed.
        """
        query = delete(Revocation).where(Revocation.expires_at < int(now - grace))
        try:
            async with self._engine.begin() as connection:
                return (await connection.execute(query)).rowcount
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable() from error


def _unavailable() -> Unavailable:
    return Unavailable("STORE_UNAVAILABLE", "The store does not answer.")
