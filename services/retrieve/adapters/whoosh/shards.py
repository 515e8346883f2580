"""A whoosh index beside every shard of a store: the same chunks, flushed before the same commit.

The shard stays the truth: it keeps payloads and sparse vectors as without whoosh, and a whoosh
index that is missing, of another format or broken is made again from them, while the shard's own
sparse arm answers. That is how SPARSE_BACKEND is changed, either way.

Nothing here decides what is visible. Both arms have the points of documents that are being written
or replaced, and leave out what the catalogue calls hidden; so its commit is the one version that
publishes a document in both. See `services.retrieve.adapters.index`.
"""

import logging
import shutil
import tempfile
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from services.retrieve.adapters.points import Allowed, Shard, Shards, payload, point_id
from services.retrieve.adapters.whoosh.schema import FORMAT
from services.retrieve.adapters.whoosh.storage import sync_folder
from services.retrieve.adapters.whoosh.words import WordIndex
from services.retrieve.ports import (
    Document,
    EncodedChunk,
    FieldTerms,
    NewCollection,
    SparseVector,
    WordQuery,
)

log = logging.getLogger(__name__)

_COMPLETE = "complete"
"""The file that says that an index has every chunk of its shard, and of which format it is."""


class WhooshShard:
    """A shard with a word index beside it."""

    def __init__(
        self,
        shard: Shard,
        words: WordIndex,
        path: Path,
        pin: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._shard = shard
        self._words = words
        self._path = path
        self._pin = pin
        """Keeps the word index open: while a shard waits for the disk, others are opened."""

    def upsert(self, points: Iterable[tuple[int, Document, EncodedChunk]]) -> None:
        with self._pin():
            self._upsert(list(points))

    def _upsert(self, given: Sequence[tuple[int, Document, EncodedChunk]]) -> None:
        self._shard.upsert(given)
        without = [point_id(at, one.chunk.index) for at, _, one in given if one.terms is None]
        if not all(map(self._words.has, without)):
            _mark_incomplete(self._path)  # whoever wrote them did not know of words
        self._words.add(
            (point_id(version, one.chunk.index), payload(document, version, one.chunk), one.terms)
            for version, document, one in given
            if one.terms is not None
        )

    def delete(self, points: Sequence[int]) -> None:
        with self._pin():
            self._shard.delete(points)
            self._words.delete(points)

    def flush(self) -> None:
        with self._pin():
            self._shard.flush()
            try:
                self._words.flush()
            except BaseException:
                _mark_incomplete(self._path)  # chunks of several documents may have gone with it
                raise

    def add_words(self, terms: Sequence[tuple[int, FieldTerms]]) -> None:
        payloads = self._shard.payloads([point for point, _ in terms])
        self._words.add((point, payloads[point], one) for point, one in terms if point in payloads)

    def matching(self, asked: WordQuery, limit: int, allowed: Allowed) -> list[tuple[int, float]]:
        return self._words.search(asked, limit, allowed)

    def nearest(
        self, vector: bytes | SparseVector, limit: int, allowed: Allowed
    ) -> list[tuple[int, float]]:
        return self._shard.nearest(vector, limit, allowed)

    def payloads(self, points: Sequence[int]) -> Mapping[int, Mapping[str, Any]]:
        return self._shard.payloads(points)

    def vectors(self, points: Sequence[int]) -> Mapping[int, bytes]:
        return self._shard.vectors(points)

    def terms(self, points: Sequence[int]) -> Mapping[int, tuple[int, ...]]:
        return self._shard.terms(points)

    def count(self) -> int:
        return self._shard.count()

    def idf(self, terms: Sequence[int]) -> list[float]:
        return self._shard.idf(terms)


class WhooshShards:
    """Shards of a store, each with a word index, in a folder of the same name."""

    def __init__(self, shards: Shards, root: Path | None, limit: int) -> None:
        """Args:
        shards: of a store of this process.
        root: the folder for the indexes; None for one that ends with this object.
        limit: how many are open at once; as many as `shards` opens, and in the same order.
        """
        self._shards = shards
        self._temporary = tempfile.TemporaryDirectory() if root is None else None
        self._root = root or Path(self._temporary.name if self._temporary else "")
        self._limit = limit
        self._open: OrderedDict[str, WordIndex] = OrderedDict()
        self._used: dict[str, float] = {}
        self._pins: Counter[str] = Counter()
        """Of those that must stay open, however many there are."""

    @contextmanager
    def _pinned(self, folder: str) -> Iterator[None]:
        self._pins[folder] += 1
        try:
            yield
        finally:
            self._pins[folder] -= 1
            if not self._pins[folder]:
                del self._pins[folder]

    def open(self, folder: str, facts: NewCollection, *, expect_data: bool) -> WhooshShard:
        shard = self._shards.open(folder, facts, expect_data=expect_data)
        words = self._open.get(folder)
        if words is None:
            for name in [one for one in self._open if one not in self._pins]:
                if len(self._open) < self._limit:
                    break
                self._close(name)
            words = self._open[folder] = self._load(self._root / folder, expect_data)
        self._open.move_to_end(folder)
        self._used[folder] = time.monotonic()
        return WhooshShard(shard, words, self._root / folder, partial(self._pinned, folder))

    def _load(self, path: Path, expect_data: bool) -> WordIndex:
        complete = _is_complete(path)
        if complete or expect_data:  # one that is being filled goes on
            try:
                return WordIndex(path)
            except Exception:
                log.warning(
                    "a word index cannot be opened", extra={"folder": path.name}, exc_info=True
                )
        shutil.rmtree(path, ignore_errors=True)
        words = WordIndex(path)
        if not expect_data:
            _mark_complete(path)
        return words

    def lacks_words(self, folder: str) -> bool:
        return not _is_complete(self._root / folder)

    def words_are_complete(self, folder: str) -> None:
        _mark_complete(self._root / folder)

    def _close(self, folder: str) -> None:
        words = self._open.pop(folder, None)
        self._used.pop(folder, None)
        if words is not None:
            words.close()

    def close_idle(self, seconds: float) -> None:
        limit = time.monotonic() - seconds
        for folder in [name for name, used in self._used.items() if used < limit]:
            if folder not in self._pins:
                self._close(folder)
        self._shards.close_idle(seconds)

    def remove(self, folder: str) -> None:
        self._close(folder)
        shutil.rmtree(self._root / folder, ignore_errors=True)
        self._shards.remove(folder)

    def folders(self, parent: str) -> int:
        path = self._root / parent
        own = 1 + sum(1 for _ in path.iterdir()) if path.exists() else 0
        return own + self._shards.folders(parent)

    def remove_parent(self, parent: str) -> None:
        for folder in [name for name in self._open if name.startswith(f"{parent}/")]:
            self._close(folder)
        shutil.rmtree(self._root / parent, ignore_errors=True)
        self._shards.remove_parent(parent)

    def close_all(self) -> None:
        for folder in list(self._open):
            self._close(folder)
        self._shards.close_all()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __len__(self) -> int:
        return len(self._shards)


def _is_complete(path: Path) -> bool:
    try:
        return (path / _COMPLETE).read_text() == FORMAT
    except OSError:
        return False


def _mark_incomplete(path: Path) -> None:
    (path / _COMPLETE).unlink(missing_ok=True)
    sync_folder(path)


def _mark_complete(path: Path) -> None:
    draft = path / f"{_COMPLETE}.new"
    draft.write_text(FORMAT)
    draft.replace(path / _COMPLETE)
    sync_folder(path)
