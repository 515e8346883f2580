"""What exists, in SQLite: the one truth about which version of a document is current.

Chunks lie in the engine under the version that wrote them. A version is visible when `documents`
names it; one that is named in `orphans` is being written or waits to be removed. So one commit
publishes a batch, and a restart knows what to clean up. In WAL mode with synchronous=NORMAL a
commit waits for nothing; `sync` puts all commits so far on disk, and may be called in another
thread, so that whoever searches need not wait for the disk.
"""

import hashlib
import json
import os
import sqlite3
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.retrieve.access import EVERYTHING
from services.retrieve.ports import (
    Attributes,
    Collection,
    CollectionKey,
    Document,
    NewCollection,
)
from services.runtime.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)

FORMAT_VERSION = 4
"""2: documents have access lists; 3: collections have profiles; 4: those of Edge may be several
shards, which earlier versions would take for an empty one."""
CHECKPOINT_BYTES = 8 * 1024 * 1024
"""Size of the log from which it is written into the file."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS collections (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, name TEXT NOT NULL,
    folder TEXT NOT NULL UNIQUE, description TEXT NOT NULL, encoder TEXT NOT NULL,
    dimensions INTEGER NOT NULL, analyzer TEXT NOT NULL, tokenizer_id TEXT NOT NULL,
    chunk_tokens INTEGER NOT NULL, chunk_overlap INTEGER NOT NULL, created_at REAL NOT NULL,
    profile TEXT NOT NULL DEFAULT '', encoder_languages TEXT NOT NULL DEFAULT '',
    encoder_normalizes INTEGER, UNIQUE (tenant, name)
);
CREATE TABLE IF NOT EXISTS documents (
    collection INTEGER NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    id TEXT NOT NULL, version INTEGER NOT NULL UNIQUE, title TEXT NOT NULL, source TEXT NOT NULL,
    metadata TEXT NOT NULL, content_hash TEXT NOT NULL, format TEXT NOT NULL,
    language TEXT NOT NULL, pages INTEGER NOT NULL, chunks INTEGER NOT NULL,
    bytes INTEGER NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL,
    languages TEXT NOT NULL, access TEXT NOT NULL DEFAULT '[]', PRIMARY KEY (collection, id)
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
    "created_at, updated_at, access"
)
_LATER_FACTS = {"encoder_languages": "TEXT NOT NULL DEFAULT ''", "encoder_normalizes": "INTEGER"}
_BROKEN = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})


@dataclass(frozen=True, slots=True)
class Row:
    """A collection's row."""

    id: int
    folder: str
    facts: NewCollection
    created_at: float
    profile: str


@dataclass(slots=True)
class Totals:
    """Documents, chunks, and chunks by language."""

    documents: int = 0
    chunks: int = 0
    languages: Counter[str] = field(default_factory=Counter)

    def add(self, documents: int, chunks: int, languages: Mapping[str, int], times: int) -> None:
        """Add so many documents with their chunks, `times` times; a negative number takes away."""
        self.documents += documents * times
        self.chunks += chunks * times
        for language, part in languages.items():
            self.languages[language] += part * times


class Catalog:
    """The tables. Not thread-safe: the engine has one thread that works."""

    def __init__(self, path: Path | str) -> None:
        """Open or create; ``:memory:`` keeps it for as long as the process lives.

        Raises:
            FailedPrecondition: DATA_TOO_NEW, when a later version of ragmesh wrote it;
                DATA_UNREADABLE, when it is no database, or a broken one.
        """
        self._path = Path(path) if str(path) != ":memory:" else None
        self._db = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorname not in _BROKEN:
                raise
            raise FailedPrecondition(
                "DATA_UNREADABLE",
                f"The index's catalogue {path} cannot be read ({error}); restore it from a "
                f"backup, or move {Path(path).parent} away and ingest again.",
            ) from error

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA wal_autocheckpoint = 0")  # `sync` does it
        self._db.execute("PRAGMA journal_size_limit = 0")
        self._db.execute("PRAGMA foreign_keys = ON")
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found > FORMAT_VERSION:
            raise FailedPrecondition(
                "DATA_TOO_NEW",
                f"The index has format {found}, this version reads up to {FORMAT_VERSION}; "
                "run the version of ragmesh that wrote it.",
            )
        self._db.execute("PRAGMA secure_delete = ON")
        if found == 1:
            with self.transaction():  # with the version, or a death in between could not go on
                self._db.execute(
                    "ALTER TABLE documents ADD COLUMN access TEXT NOT NULL DEFAULT '[]'"
                )
                self._db.execute("PRAGMA user_version = 2")
        if found in (1, 2):
            with self.transaction():
                self._db.execute(
                    "ALTER TABLE collections ADD COLUMN profile TEXT NOT NULL DEFAULT ''"
                )
                self._db.execute("PRAGMA user_version = 3")
        self._db.executescript(_SCHEMA)
        # Facts that earlier versions neither know nor miss, so the format stays what it is.
        there = {row[1] for row in self._db.execute("PRAGMA table_info(collections)")}
        for name, kind in _LATER_FACTS.items():
            if name not in there:
                self._db.execute(f"ALTER TABLE collections ADD COLUMN {name} {kind}")
        self._db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")

    def close(self) -> None:
        self._db.close()

    def checkpoint(self) -> None:
        """Write the log into the file and empty it, so that what was deleted is in neither."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def sync(self) -> None:
        """Put all commits so far on disk. May be called in any thread, also beside other calls."""
        if self._path is None:
            return
        try:
            log = os.open(f"{self._path}-wal", os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            os.fsync(log)
            size = os.fstat(log).st_size
        finally:
            os.close(log)
        if size >= CHECKPOINT_BYTES:
            # What cannot be copied now, because somebody reads, is copied the next time.
            with closing(sqlite3.connect(self._path, isolation_level=None)) as other:
                other.execute("PRAGMA synchronous = NORMAL")
                other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One commit, or nothing; durable once `sync` has returned."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite ends it by itself where the disk is full
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
                " analyzer, tokenizer_id, chunk_tokens, chunk_overlap, created_at,"
                " encoder_languages, encoder_normalizes)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (key.tenant, key.name, folder, new.description, new.encoder, new.dimensions,
                 new.analyzer, new.tokenizer_id, new.chunk_tokens, new.chunk_overlap, created_at,
                 " ".join(new.encoder_languages), new.encoder_normalizes),
            )  # fmt: skip

    def find(self, key: CollectionKey) -> Row:
        """Raises: NotFound COLLECTION_NOT_FOUND."""
        row = self._db.execute(
            "SELECT id, folder, description, encoder, dimensions, analyzer, tokenizer_id,"
            " chunk_tokens, chunk_overlap, created_at, profile, encoder_languages,"
            " encoder_normalizes FROM collections"
            " WHERE tenant = ? AND name = ?",
            (key.tenant, key.name),
        ).fetchone()
        if row is None:
            raise NotFound(
                "COLLECTION_NOT_FOUND",
                f"The collection {key.name[:100]!r} does not exist.",
                field="collection",
            )
        normalizes = None if row[12] is None else bool(row[12])
        known = [*row[2:9], tuple(row[11].split()), normalizes]
        facts = NewCollection(key, *known)
        return Row(row[0], row[1], facts, row[9], row[10])

    def names(self, tenant: str, after: str = "", limit: int = -1) -> list[str]:
        rows = self._db.execute(
            "SELECT name FROM collections WHERE tenant = ? AND name > ? ORDER BY name LIMIT ?",
            (tenant, after, limit),
        )
        return [name for (name,) in rows]

    def contents(self, tenant: str) -> tuple[int, int, int]:
        """Collections, documents and chunks of a tenant."""
        row = self._db.execute(
            "SELECT (SELECT count(*) FROM collections WHERE tenant = ?), count(*),"
            " coalesce(sum(chunks), 0) FROM documents WHERE collection IN"
            " (SELECT id FROM collections WHERE tenant = ?)",
            (tenant, tenant),
        ).fetchone()
        return row[0], row[1], row[2]

    def set_profile(self, collection: int, profile: str) -> None:
        self._db.execute("UPDATE collections SET profile = ? WHERE id = ?", (profile, collection))

    def replace(self, old: Row, new: Row) -> None:
        """Give `new` the name, the description and the time of creation of `old`, and drop that.

        Raises:
            Aborted: COLLECTION_CHANGED, unless both hold the same documents.
        """
        differing = (
            "SELECT 1 FROM (SELECT id, content_hash FROM documents WHERE collection = ? EXCEPT"
            " SELECT id, content_hash FROM documents WHERE collection = ?) LIMIT 1"
        )
        with self.transaction():
            for pair in ((old.id, new.id), (new.id, old.id)):
                if self._db.execute(differing, pair).fetchone():
                    raise Aborted(
                        "COLLECTION_CHANGED", "The collection was changed meanwhile; try again."
                    )
            self._db.execute("INSERT INTO dropped VALUES (?)", (old.folder,))
            self._db.execute("DELETE FROM collections WHERE id = ?", (old.id,))
            self._db.execute(
                "UPDATE collections SET name = ?, description = ?, created_at = ? WHERE id = ?",
                (old.facts.key.name, old.facts.description, old.created_at, new.id),
            )

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

    def totals(self, collection: int) -> dict[tuple[str, ...], Totals]:
        """What the collection has, by access list."""
        found: dict[tuple[str, ...], Totals] = {}
        for access, count, text, number in self._db.execute(
            "SELECT access, sum(chunks), languages, count(*) FROM documents WHERE collection = ?"
            " GROUP BY access, languages",
            (collection,),
        ):
            totals = found.setdefault(tuple(json.loads(access)), Totals())
            totals.add(number, count, {}, 1)
            totals.add(0, 0, json.loads(text), number)
        return found

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
            raise not_found()
        return row[0], _document(row[2:]), Counter(json.loads(row[1]))

    def of_versions(self, versions: Iterable[int]) -> dict[int, Document]:
        wanted = list(versions)
        marks = ",".join("?" * len(wanted))
        rows = self._db.execute(
            f"SELECT version, {_DOCUMENT} FROM documents WHERE version IN ({marks})",  # noqa: S608
            wanted,
        )
        return {row[0]: _document(row[1:]) for row in rows}

    def versions(self, collection: int, first: int, limit: int) -> list[tuple[int, int]]:
        """Current versions from `first` on, with their chunks, in order; -1 for no limit."""
        rows = self._db.execute(
            "SELECT version, chunks FROM documents WHERE collection = ? AND version >= ?"
            " ORDER BY version LIMIT ?",
            (collection, first, limit),
        )
        return [(version, chunks) for version, chunks in rows]

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

    def list(
        self, collection: int, after: str, limit: int, attributes: Attributes
    ) -> list[Document]:
        """Documents that a caller with these attributes may read, by id."""
        readable = ""
        wanted: Attributes = ()
        if EVERYTHING not in attributes:
            wanted = attributes
            marks = ",".join("?" * len(wanted))
            listed = f"SELECT 1 FROM json_each(access) WHERE value IN ({marks})"  # noqa: S608
            readable = f" AND (access = '[]' OR EXISTS ({listed}))"
        rows = self._db.execute(
            f"SELECT {_DOCUMENT} FROM documents WHERE collection = ? AND id > ?"  # noqa: S608
            f"{readable} ORDER BY id LIMIT ?",
            (collection, after, *wanted, limit),
        )
        return [_document(row) for row in rows]

    def put(
        self, collection: int, version: int, document: Document, languages: Counter[str]
    ) -> None:
        """Make a version current. Inside a transaction."""
        self._db.execute(
            "INSERT OR REPLACE INTO documents (collection, version, languages, "  # noqa: S608
            f"{_DOCUMENT}) VALUES ({','.join('?' * 16)})",
            (collection, version, json.dumps(languages, sort_keys=True), document.id,
             document.title, document.source, document.metadata_json, document.content_hash,
             document.format, document.language, document.pages, document.chunks, document.bytes,
             document.created_at, document.updated_at,
             json.dumps(document.access, ensure_ascii=False)),
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


def new_folder(key: CollectionKey) -> str:
    """A folder that no other collection, nor an earlier one of this name, has used."""
    name = hashlib.sha256(key.name.encode()).hexdigest()[:32]
    return f"{tenant_digest(key.tenant)}/{name}-{uuid.uuid4().hex[:12]}"


def not_found() -> NotFound:
    """The one answer for a document that is not there and one that may not be read."""
    return NotFound("DOCUMENT_NOT_FOUND", "The document does not exist.", field="id")


def document_changed(document_id: str) -> Aborted:
    """The refusal to remove a document that is not as it was seen."""
    return Aborted(
        "DOCUMENT_CHANGED",
        f"The document {document_id[:100]!r} was changed meanwhile; try again.",
        field="id",
    )


def restricted() -> PermissionDenied:
    """The refusal to delete or replace a collection of which the caller may not read all."""
    return PermissionDenied(
        "COLLECTION_RESTRICTED",
        "The collection holds documents that the token may not read, so it may neither "
        "delete nor replace it.",
        field="collection",
    )


def _document(row: Sequence[Any]) -> Document:
    """A document from the columns of `_DOCUMENT`."""
    access = () if row[-1] == "[]" else tuple(json.loads(row[-1]))
    return Document(*(*row[:-1], access))


def tenant_digest(tenant: str) -> str:
    """The folder of a tenant: what a path may hold, whatever the tenant is called."""
    return hashlib.sha256(tenant.encode()).hexdigest()[:32]


def describe(row: Row, totals: Totals, all_chunks: int) -> Collection:
    """A collection's facts for the caller."""
    facts = row.facts
    return Collection(
        facts.key.name, facts.description, facts.encoder, facts.dimensions, facts.analyzer,
        facts.tokenizer_id, facts.chunk_tokens, facts.chunk_overlap, totals.documents,
        totals.chunks, row.created_at, dict(+totals.languages), row.folder, all_chunks,
        row.profile, encoder_languages=facts.encoder_languages,
        encoder_normalizes=facts.encoder_normalizes,
    )  # fmt: skip
