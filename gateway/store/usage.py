"""Requests and tokens by tenant, day and model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.store.tables import Usage
from services.runtime.errors import RagmeshError, Unavailable

ROWS_PER_STATEMENT = 500


@dataclass(frozen=True, slots=True)
class UsageKey:
    """Whose, when and of what."""

    tenant: str
    day: date
    """In UTC."""
    model: str


@dataclass(slots=True)
class UsageCounts:
    """How much."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    embedding_tokens: int = 0
    estimated: int = 0
    """Requests whose tokens are estimates."""

    def add(self, other: "UsageCounts") -> None:
        self.requests += other.requests
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.embedding_tokens += other.embedding_tokens
        self.estimated += other.estimated


COUNTS = tuple(UsageCounts.__dataclass_fields__)


class UsageStore:
    """The table of usage. Every method raises Unavailable STORE_UNAVAILABLE."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, counts: Mapping[UsageKey, UsageCounts]) -> None:
        """Add to what is there, in one transaction: replicas write the same rows."""
        # In one order everywhere, so that two replicas never wait for each other in a circle.
        keys = sorted(counts, key=lambda key: (key.tenant, key.day, key.model))
        rows = [{**asdict(key), **asdict(counts[key])} for key in keys]
        try:
            async with self._engine.begin() as connection:
                for start in range(0, len(rows), ROWS_PER_STATEMENT):
                    await connection.execute(self._upsert(rows[start : start + ROWS_PER_STATEMENT]))
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable() from error

    def _upsert(self, rows: Sequence[dict[str, Any]]) -> Any:
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(Usage).values(list(rows))
        added = {name: getattr(Usage, name) + statement.excluded[name] for name in COUNTS}
        return statement.on_conflict_do_update(
            index_elements=["tenant", "day", "model"], set_=added
        )

    async def read(
        self, tenant: str, first: date, last: date, model: str | None = None
    ) -> list[tuple[UsageKey, UsageCounts]]:
        """By day and model, both days included."""
        query = (
            select(Usage.day, Usage.model, *(getattr(Usage, name) for name in COUNTS))
            .where(Usage.tenant == tenant, Usage.day >= first, Usage.day <= last)
            .order_by(Usage.day, Usage.model)
        )
        if model is not None:
            query = query.where(Usage.model == model)
        try:
            async with self._engine.connect() as connection:
                rows = (await connection.execute(query)).all()
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable() from error
        return [(UsageKey(tenant, row[0], row[1]), UsageCounts(*row[2:])) for row in rows]

    async def count(self, tenant: str) -> int:
        """Rows of a tenant."""
        query = select(func.count()).where(Usage.tenant == tenant)
        try:
            async with self._engine.connect() as connection:
                return int((await connection.execute(query)).scalar_one())
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable() from error

    async def delete_tenant(self, tenant: str) -> None:
        try:
            async with self._engine.begin() as connection:
                await connection.execute(delete(Usage).where(Usage.tenant == tenant))
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable() from error


def _unavailable() -> RagmeshError:
    return Unavailable("STORE_UNAVAILABLE", "The SQL store does not answer.", retry_after=1.0)
