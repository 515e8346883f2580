"""What exists, in SQLite: the one truth about which version of a document is current.

Chunks lie in Edge under the version that wrote them. A version is visible when `documents` names
it; one that is named in `orphans` is being written or waits to be removed. So one commit publishes
a batch, and a restart knows what to clean up. WAL with synchronous=FULL: a commit is on disk.
"""

import json
import sqlite3
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.retrieve.ports import Collection, CollectionKey, Document, NewCollection
from services.runtime.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted

FORMAT_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS collections (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, name TEXT NOT NULL,
    folder TEXT NOT NULL UNIQUE, description TEXT NOT NULL, encoder TEXT NOT NULL,
    dimensions INTEGER NOT NULL, analyzer TEXT NOT NULL, tokenizer_id TEXT NOT NULL,
    chunk_tokens INTEGER NOT NULL, chunk_overlap INTEGER NOT NULL, created_at REAL NOT NULL,
    UNIQUE (tenant, name)
);
CREATE TABLE IF NOT EXISTS documents (
    collection INTEGER NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    id TEXT NOT NULL, version INTEGER NOT NULL UNIQUE, title TEXT NOT NULL, source TEXT NOT NULL,
    metadata TEXT NOT NULL, content_hash TEXT NOT NULL, format TEXT NOT NULL,
    language TEXT NOT NULL, pages INTEGER NOT NULL, chunks INTEGER NOT NULL,
    bytes INTEGER NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL,
    languages TEXT NOT NULL, PRIMARY KEY (collection, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orphans (
    version INTEGER PRIMARY KEY,
    collection INTEGER NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    chunks INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS orphans_by_collection ON orphans (collection);
CREATE TABLE IF NOT EXISTS dropped (folder TEXT PRIMARY KEY);
"""
_DOCUMENT = (
    "id, title, source, metadata, content_hash, format, language, pages, chunks, bytes, "
    "created_at, updated_at"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A collection's row."""

    id: int
    folder: str
    facts: NewCollection
    created_at: float


class Catalog:
    """The tables. Not thread-safe: the engine has one thread that works."""

    def __init__(self, path: Path) -> None:
        """Open or create.

        Raises:
            FailedPrecondition: DATA_TOO_NEW, when a later version of ragmesh wrote it.
        """
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found > FORMAT_VERSION:
            raise FailedPrecondition(
                "DATA_TOO_NEW",
                f"The index has format {found}, this version reads up to {FORMAT_VERSION}; "
                "run the version of ragmesh that wrote it.",
            )
        self._db.executescript(_SCHEMA)
        self._db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One durable commit, or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def next_version(self) -> int:
        """The first version that no row names."""
        row = self._db.execute(
            "SELECT max(coalesce((SELECT max(version) FROM documents), 0),"
            " coalesce((SELECT max(version) FROM orphans), 0))"
        ).fetchone()
        return int(row[0]) + 1

    # Collections

    def create(self, new: NewCollection, folder: str, created_at: float, limit: int) -> None:
        key = new.key
        with self.transaction():
            held = self._db.execute(
                "SELECT count(*), coalesce(sum(name = ?), 0) FROM collections WHERE tenant = ?",
                (key.name, key.tenant),
            ).fetchone()
            if held[1]:
                raise AlreadyExists(
                    "COLLECTION_EXISTS", f"The collection {key.name!r} exists.", field="name"
                )
            if held[0] >= limit:
                raise ResourceExhausted(
                    "TOO_MANY_COLLECTIONS", f"A tenant has at most {limit} collections."
                )
            self._db.execute(
                "INSERT INTO collections (tenant, name, folder, description, encoder, dimensions,"
                " analyzer, tokenizer_id, chunk_tokens, chunk_overlap, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (key.tenant, key.name, folder, new.description, new.encoder, new.dimensions,
                 new.analyzer, new.tokenizer_id, new.chunk_tokens, new.chunk_overlap, created_at),
            )  # fmt: skip

    def find(self, key: CollectionKey) -> Row:
        """Raises: NotFound COLLECTION_NOT_FOUND."""
        row = self._db.execute(
            "SELECT id, folder, description, encoder, dimensions, analyzer, tokenizer_id,"
            " chunk_tokens, chunk_overlap, created_at FROM collections"
            " WHERE tenant = ? AND name = ?",
            (key.tenant, key.name),
        ).fetchone()
        if row is None:
            raise NotFound(
                "COLLECTION_NOT_FOUND",
                f"The collection {key.name[:100]!r} does not exist.",
                field="collection",
            )
        return Row(row[0], row[1], NewCollection(key, *row[2:9]), row[9])

    def names(self, tenant: str, after: str, limit: int) -> list[str]:
        rows = self._db.execute(
            "SELECT name FROM collections WHERE tenant = ? AND name > ? ORDER BY name LIMIT ?",
            (tenant, after, limit),
        )
        return [name for (name,) in rows]

    def drop(self, row: Row) -> None:
        """Forget a collection and remember that its folder is to be removed."""
        with self.transaction():
            self._db.execute("INSERT INTO dropped VALUES (?)", (row.folder,))
            self._db.execute("DELETE FROM collections WHERE id = ?", (row.id,))

    def dropped(self) -> list[str]:
        return [folder for (folder,) in self._db.execute("SELECT folder FROM dropped")]

    def forget_dropped(self, folder: str) -> None:
        self._db.execute("DELETE FROM dropped WHERE folder = ?", (folder,))

    # Documents

    def totals(self, collection: int) -> tuple[int, int, Counter[str]]:
        """Documents, chunks, and chunks by language."""
        documents, chunks, languages = 0, 0, Counter[str]()
        for count, text, number in self._db.execute(
            "SELECT sum(chunks), languages, count(*) FROM documents WHERE collection = ?"
            " GROUP BY languages",
            (collection,),
        ):
            documents += number
            chunks += count
            for language, part in json.loads(text).items():
                languages[language] += part * number
        return documents, chunks, languages

    def current(self, collection: int, document_id: str) -> tuple[int, Document, Counter[str]]:
        """A document's version, facts, and chunks by language.

        Raises:
            NotFound: DOCUMENT_NOT_FOUND.
        """
        row = self._db.execute(
            f"SELECT version, languages, {_DOCUMENT} FROM documents"  # noqa: S608
            " WHERE collection = ? AND id = ?",
            (collection, document_id),
        ).fetchone()
        if row is None:
            raise NotFound("DOCUMENT_NOT_FOUND", "The document does not exist.", field="id")
        return row[0], Document(*row[2:]), Counter(json.loads(row[1]))

    def of_versions(self, versions: Iterable[int]) -> dict[int, Document]:
        wanted = list(versions)
        marks = ",".join("?" * len(wanted))
        rows = self._db.execute(
            f"SELECT version, {_DOCUMENT} FROM documents WHERE version IN ({marks})",  # noqa: S608
            wanted,
        )
        return {row[0]: Document(*row[1:]) for row in rows}

    def unchanged(
        self, collection: int, versions: Sequence[tuple[str, str]]
    ) -> list[tuple[str, int]]:
        found = []
        for document_id, content_hash in versions:
            row = self._db.execute(
                "SELECT chunks FROM documents WHERE collection = ? AND id = ? AND content_hash = ?",
                (collection, document_id, content_hash),
            ).fetchone()
            if row:
                found.append((document_id, row[0]))
        return found

    def list(self, collection: int, after: str, limit: int) -> list[Document]:
        rows = self._db.execute(
            f"SELECT {_DOCUMENT} FROM documents WHERE collection = ? AND id > ?"  # noqa: S608
            " ORDER BY id LIMIT ?",
            (collection, after, limit),
        )
        return [Document(*row) for row in rows]

    def put(
        self, collection: int, version: int, document: Document, languages: Counter[str]
    ) -> None:
        """Make a version current. Inside a transaction."""
        self._db.execute(
            "INSERT OR REPLACE INTO documents (collection, version, languages, "  # noqa: S608
            f"{_DOCUMENT}) VALUES ({','.join('?' * 15)})",
            (collection, version, json.dumps(languages, sort_keys=True), document.id,
             document.title, document.source, document.metadata_json, document.content_hash,
             document.format, document.language, document.pages, document.chunks, document.bytes,
             document.created_at, document.updated_at),
        )  # fmt: skip

    def remove(self, collection: int, document_id: str) -> None:
        """Inside a transaction."""
        self._db.execute(
            "DELETE FROM documents WHERE collection = ? AND id = ?", (collection, document_id)
        )

    # Orphans

    def orphans(self, collection: int) -> dict[int, int]:
        """Versions that are not current, with their chunks."""
        return dict(
            self._db.execute(
                "SELECT version, chunks FROM orphans WHERE collection = ?", (collection,)
            )
        )

    def add_orphans(self, collection: int, versions: Iterable[tuple[int, int]]) -> None:
        """Inside a transaction."""
        self._db.executemany(
            "INSERT INTO orphans (collection, version, chunks) VALUES (?, ?, ?)",
            [(collection, version, chunks) for version, chunks in versions],
        )

    def forget_orphans(self, versions: Iterable[int]) -> None:
        self._db.executemany(
            "DELETE FROM orphans WHERE version = ?", [(version,) for version in versions]
        )


def new_folder(tenant_digest: str, name_digest: str) -> str:
    """A folder that no other collection, nor an earlier one of this name, has used."""
    return f"{tenant_digest}/{name_digest}-{uuid.uuid4().hex[:12]}"


def describe(row: Row, totals: tuple[int, int, Counter[str]]) -> Collection:
    """A collection's facts for the caller."""
    facts = row.facts
    documents, chunks, languages = totals
    return Collection(
        facts.key.name, facts.description, facts.encoder, facts.dimensions, facts.analyzer,
        facts.tokenizer_id, facts.chunk_tokens, facts.chunk_overlap, documents, chunks,
        row.created_at, dict(languages), row.folder,
    )  # fmt: skip
