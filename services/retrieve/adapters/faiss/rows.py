"""What a collection keeps on disk: one SQLite file with a row for each chunk."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from services.retrieve.ports import SparseVector

FORMAT_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS points (
    point INTEGER PRIMARY KEY, stamp INTEGER NOT NULL,
    payload BLOB NOT NULL, dense BLOB NOT NULL, sparse BLOB NOT NULL
);
"""
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Stored:
    """A chunk in memory's terms; `dense` is empty where it was not asked for."""

    point: int
    stamp: int
    dense: bytes
    terms: NDArray[np.uint32]
    weights: NDArray[np.float32]


class Rows:
    """The file. Writes are durable after `commit`; not thread-safe."""

    def __init__(self, path: Path) -> None:
        """Raises: sqlite3.DatabaseError, for what is no database, a broken or a later one."""
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA secure_delete = ON")
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found > FORMAT_VERSION:
            raise sqlite3.DatabaseError("a later version wrote the file")
        if not found:
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")

    def close(self) -> None:
        self._db.close()

    def commit(self) -> None:
        if self._db.in_transaction:
            self._db.execute("COMMIT")

    def put(
        self, point: int, stamp: int, payload: Mapping[str, Any], dense: bytes, sparse: SparseVector
    ) -> None:
        terms = np.asarray(sparse.indices, "<u4").tobytes()
        weights = np.asarray(sparse.values, "<f4").tobytes()
        self._begin()
        self._db.execute(
            "INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?)",
            (point, stamp, msgpack.packb(payload), dense, terms + weights),
        )

    def delete(self, points: Iterable[int]) -> None:
        self._begin()
        self._db.executemany("DELETE FROM points WHERE point = ?", [(one,) for one in points])

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")

    def last_stamp(self) -> int:
        found = self._db.execute("SELECT coalesce(max(stamp), 0) FROM points").fetchone()
        return int(found[0])

    def everything(self, *, dense_after: int) -> Iterator[Stored]:
        """Every chunk, those with the lowest stamp first, with vectors of later stamps only."""
        rows = self._db.execute(
            "SELECT point, stamp, CASE WHEN stamp > ? THEN dense ELSE x'' END, sparse FROM points"
            " ORDER BY stamp",
            (dense_after,),
        )
        for point, stamp, dense, sparse in rows:
            yield Stored(point, stamp, dense, *_sparse(sparse))

    def payloads(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for point, payload in self._db.execute("SELECT point, payload FROM points"):
            yield point, _read(payload)

    def payloads_of(self, points: Sequence[int]) -> dict[int, dict[str, Any]]:
        return {point: _read(value) for point, value in self._of(points, "payload")}

    def dense_of(self, points: Sequence[int]) -> dict[int, bytes]:
        return dict(self._of(points, "dense"))

    def terms_of(self, points: Sequence[int]) -> dict[int, tuple[int, ...]]:
        found = self._of(points, "sparse")
        return {point: tuple(_sparse(value)[0].tolist()) for point, value in found}

    def stamps_of(self, points: Sequence[int]) -> dict[int, int]:
        return dict(self._of(points, "stamp"))

    def _of(self, points: Sequence[int], column: str) -> Iterator[tuple[int, Any]]:
        for start in range(0, len(points), _AT_ONCE):
            part = points[start : start + _AT_ONCE]
            marks = ",".join("?" * len(part))
            yield from self._db.execute(
                f"SELECT point, {column} FROM points WHERE point IN ({marks})",  # noqa: S608
                list(part),
            )


def _read(payload: bytes) -> dict[str, Any]:
    value: dict[str, Any] = msgpack.unpackb(payload)
    return value


def _sparse(blob: bytes) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    half = len(blob) // 2
    return np.frombuffer(blob[:half], "<u4"), np.frombuffer(blob[half:], "<f4")
