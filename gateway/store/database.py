"""The engine of the SQL store, migrated forwards before use."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from services.runtime.errors import FailedPrecondition

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 7_240_711_902
"""Advisory lock of PostgreSQL under which one of several gateways migrates."""
BUSY_SECONDS = 10


async def open_database(url: URL) -> AsyncEngine:
    """Connect and migrate.

    Raises:
        FailedPrecondition: DATABASE_UNAVAILABLE, DATABASE_DRIVER_MISSING, DATABASE_TOO_NEW.
    """
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    try:
        engine = create_async_engine(url, pool_pre_ping=url.get_backend_name() != "sqlite")
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            "DATABASE_DRIVER_MISSING",
            "DATABASE_URL names PostgreSQL, whose driver is not installed: "
            "pip install 'ragmesh[postgres]'.",
        ) from error
    if url.get_backend_name() == "sqlite":
        event.listen(engine.sync_engine, "connect", _configure_sqlite)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(migrate)
    except CommandError as error:  # the revision that the store is at is not one of ours
        await engine.dispose()
        raise FailedPrecondition(
            "DATABASE_TOO_NEW",
            f"The SQL store {url.render_as_string(hide_password=True)} was written by a newer "
            "ragmesh: install that version, or restore a backup of this one.",
        ) from error
    except (SQLAlchemyError, OSError) as error:
        await engine.dispose()
        raise FailedPrecondition(
            "DATABASE_UNAVAILABLE",
            f"The SQL store {url.render_as_string(hide_password=True)} cannot be opened "
            f"({type(error).__name__}).",
        ) from error
    return engine


def migrate(connection: Connection) -> None:
    """Bring the schema to the newest revision, within the connection's transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    elif connection.dialect.name == "sqlite":
        # Takes the file's write lock before the revision is read: another gateway that starts on
        # the same data waits here, and a migration that dies half-way leaves nothing behind.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def checkpoint(engine: AsyncEngine) -> None:
    """Have SQLite write its log into the file and empty it, so that deleted words are in neither.
    A reader that is in the way leaves that to the next checkpoint."""
    if engine.dialect.name == "sqlite":
        async with engine.connect() as connection:
            await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))


def _configure_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    # First: the next line may have to wait for another process that does the same.
    cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    # WAL: a reader never waits for the writer; NORMAL loses no committed turn but on power loss.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    # What is deleted is overwritten: a deleted tenant's words do not stay in free pages.
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()
