"""The catalogue of an older version is taken over."""

import sqlite3
from collections import Counter
from dataclasses import replace
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


def test_collections_that_knew_less_of_their_encoder_stay_and_know_no_more(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    catalog = Catalog(path)
    catalog.create(collection(), "folder", 1.0, 10)
    catalog.close()
    with sqlite3.connect(path) as database:
        for column in ("encoder_languages", "encoder_normalizes"):
            database.execute(f"ALTER TABLE collections DROP COLUMN {column}")
    database.close()
    catalog = Catalog(path)
    old = replace(collection(), encoder_languages=(), encoder_normalizes=None)
    assert catalog.find(CollectionKey("tenant", "notes")).facts == old
    for number, normalizes in enumerate((True, False)):
        key = CollectionKey("tenant", f"new {number}")
        facts = replace(collection(key), encoder_normalizes=normalizes)
        catalog.create(facts, key.name, 1.0, 10)
        assert catalog.find(key).facts == facts
    catalog.close()
    with sqlite3.connect(path) as database:
        # An earlier version goes on with it: it names the columns that it knows.
        assert database.execute("PRAGMA user_version").fetchone() == (FORMAT_VERSION,)
        database.execute(
            "INSERT INTO collections (tenant, name, folder, description, encoder, dimensions,"
            " analyzer, tokenizer_id, chunk_tokens, chunk_overlap, created_at)"
            " VALUES ('tenant', 'old', 'f', '', 'e@1', 2, 't@1', '', 10, 0, 1.0)"
        )
    database.close()
