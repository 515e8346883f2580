"""Where the sparse arm of a store lives: in its engine, or in an index beside it."""

import shutil
from pathlib import Path

from services.retrieve.adapters import SPARSE_BACKENDS
from services.retrieve.adapters.points import Shards
from services.runtime.registry import resolve

ENGINE = "engine"
WORDS = "words"
"""The folder of word indexes, beside what the engine keeps."""


def with_sparse(backend: str, shards: Shards, root: Path | None, open_shards: int) -> Shards:
    """The shards of a store with the sparse arm that was chosen.

    Args:
        backend: a name of `SPARSE_BACKENDS`.
        shards: the store's.
        root: its folder; None where it keeps nothing.
        open_shards: how many it opens at once.
    """
    place = None if root is None else root / WORDS
    made: Shards = resolve(SPARSE_BACKENDS, backend, "SPARSE_BACKEND")(shards, place, open_shards)
    return made


def engine_arm(shards: Shards, place: Path | None, _open_shards: int) -> Shards:
    """Shards as they are. A word index that nothing is added to would lack chunks: it goes."""
    if place is not None and place.exists():
        shutil.rmtree(place)
    return shards
