"""The catalogue of an older version is taken over."""

import sqlite3
from collections import Counter
from pathlib import Path

from services.retrieve.adapters.catalog import FORMAT_VERSION, Catalog
from services.retrieve.ports import CollectionKey
from tests.contract.retrieve.stores import collection, document


def test_documents_of_format_1_are_for_everyone(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    catalog = Catalog(path)
    catalog.create(collection(), "folder", 1.0, 10)
    row = catalog.find(CollectionKey("tenant", "notes")).id
    with catalog.transaction():
        catalog.put(row, 1, document("a"), Counter(en=3))
    catalog.close()
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE documents DROP COLUMN access")
        database.execute("ALTER TABLE collections DROP COLUMN profile")
        database.execute("PRAGMA user_version = 1")
    database.close()
    catalog = Catalog(path)
    assert catalog.current(row, "a")[1] == document("a")
    assert [one.id for one in catalog.list(row, "", 10, ())] == ["a"]
    assert list(catalog.totals(row)) == [()]
    catalog.close()
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (FORMAT_VERSION,)
    database.close()
