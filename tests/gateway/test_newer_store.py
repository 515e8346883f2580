"""A store that a newer version has migrated."""

from pathlib import Path

import pytest
from sqlalchemy import URL, text

from gateway.store.database import open_database
from services.runtime.errors import FailedPrecondition


async def test_a_store_of_a_newer_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    url = URL.create("sqlite+aiosqlite", database=str(tmp_path / "gateway.db"))
    engine = await open_database(url)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await engine.dispose()
    with pytest.raises(FailedPrecondition) as caught:
        await open_database(url)
    assert caught.value.reason == "DATABASE_TOO_NEW"
    assert "newer" in caught.value.message
