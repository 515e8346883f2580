"""The packaged encoder with its vectors kept on disk, so that an evaluation can be repeated.

Vectors are found again by the encoder's id and the token ids, in one SQLite file.
"""

import sqlite3
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from services.retrieve.adapters.sentence_transformers import Model
from services.retrieve.ports import EncoderFacts, Matrix


class CachedModel(Model):
    """As `Model`; the folder comes from the class that `in_folder` makes."""

    folder: Path
    overtakes = False  # one connection, one thread

    @classmethod
    def in_folder(cls, folder: Path) -> type["CachedModel"]:
        """The class of models whose vectors are kept in a folder."""
        return type("CachedModelThere", (cls,), {"folder": folder})

    def load(self) -> EncoderFacts:
        facts = super().load()
        self._dimensions = facts.dimensions
        self.folder.mkdir(parents=True, exist_ok=True)
        name = sha256(facts.id.encode()).hexdigest()[:16]
        self._vectors = sqlite3.connect(
            self.folder / f"{name}.sqlite", isolation_level=None, check_same_thread=False
        )
        self._vectors.execute("PRAGMA journal_mode = WAL")
        self._vectors.execute("PRAGMA synchronous = OFF")
        self._vectors.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, row BLOB)")
        return facts

    def forward(self, batch: Sequence[Sequence[int]]) -> Matrix:
        if not hasattr(self, "_vectors"):
            return super().forward(batch)
        keys = [sha256(np.asarray(ids, "<u4").tobytes()).digest() for ids in batch]
        rows: dict[bytes, bytes] = {}
        for key in keys:
            found = self._vectors.execute("SELECT row FROM vectors WHERE key = ?", (key,))
            rows.update((key, row) for (row,) in found)
        missing = [place for place, key in enumerate(keys) if key not in rows]
        if missing:
            made = super().forward([batch[place] for place in missing]).astype("<f4")
            fresh = {keys[place]: row.tobytes() for place, row in zip(missing, made, strict=True)}
            self._vectors.execute("BEGIN")
            self._vectors.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", fresh.items())
            self._vectors.execute("COMMIT")
            rows.update(fresh)
        return np.stack([np.frombuffer(rows[key], "<f4") for key in keys])
