"""What an engine that keeps chunks as points has to offer, and how a chunk becomes a point.

`services.retrieve.adapters.index` does everything else: an engine behind it needs two classes,
a `Shard` for one collection's points and `Shards` that opens them.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from services.retrieve.adapters.conditions import ACCESS, METADATA, facets
from services.retrieve.ports import (
    Attributes,
    Chunk,
    Document,
    EncodedChunk,
    FieldTerms,
    Filter,
    NewCollection,
    SparseVector,
    StoredChunk,
    WordQuery,
)

Wait = Callable[[Callable[[], None] | None], None]
"""Runs something that waits for the disk and returns when it is done. Reads may be answered
meanwhile, so whoever waits has its state in order; writes are not. With None it only lets reads
have their turn."""

DENSE, SPARSE = "dense", "sparse"
"""The names of a point's vectors."""
_INDEX_BITS = 20


def wait_here(task: Callable[[], None] | None) -> None:
    """The `Wait` of who has nobody to answer meanwhile."""
    if task is not None:
        task()


def point_id(version: int, index: int) -> int:
    """A chunk's point: its document's version and its position."""
    return version << _INDEX_BITS | index


def version_of(point: int) -> int:
    return point >> _INDEX_BITS


def index_of(point: int) -> int:
    return point & ((1 << _INDEX_BITS) - 1)


def points_of(version: int, chunks: int) -> range:
    return range(point_id(version, 0), point_id(version, chunks))


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a search may find."""

    filter: Filter | None = None
    """The caller's, already checked."""
    languages: Sequence[str] | None = None
    """The only languages to find; None for all."""
    hidden: frozenset[int] = frozenset()
    """Points that are not current and must not be found."""
    readable: Attributes | None = None
    """The caller's attributes, one of which an access list must name; None where the caller may
    read all that is there."""


class Shard(Protocol):
    """One collection's points. Writes may be lost until `flush` has returned."""

    def upsert(self, points: Iterable[tuple[int, Document, EncodedChunk]]) -> None:
        """Write chunks, given with their documents' versions and facts."""

    def delete(self, points: Sequence[int]) -> None:
        """Delete points; some may not exist."""

    def flush(self) -> None:
        """Make what was written and deleted durable, where the engine is."""

    def nearest(
        self, vector: bytes | SparseVector, limit: int, allowed: Allowed
    ) -> list[tuple[int, float]]:
        """The points nearest to a dense (bytes) or a sparse vector with their scores, best first.

        Dense scores are cosines; sparse scores are products with the query's weights multiplied
        by the terms' IDF over the collection's points.
        """

    def payloads(self, points: Sequence[int]) -> Mapping[int, Mapping[str, Any]]:
        """Payloads of the points that exist."""

    def vectors(self, points: Sequence[int]) -> Mapping[int, bytes]:
        """Dense vectors of the points that exist: little-endian float32, of length 1."""

    def terms(self, points: Sequence[int]) -> Mapping[int, tuple[int, ...]]:
        """Ids of the terms of the points that exist."""

    def count(self) -> int:
        """Points, current or not."""

    def idf(self, terms: Sequence[int]) -> list[float]:
        """The weight that `nearest` gives each term; 0 for one that no point has."""


class Shards(Protocol):
    """The open shards of one store."""

    def open(self, folder: str, facts: NewCollection, *, expect_data: bool) -> Shard:
        """The shard of a folder.

        Args:
            folder: the tenant's part, a slash, and a part that no other collection has.
            facts: the collection's.
            expect_data: whether documents were acknowledged in it; if not, what a crash left of
                its creation is removed and it is created again.

        Raises:
            DataLoss: COLLECTION_UNREADABLE.
        """

    def remove(self, folder: str) -> None:
        """Delete a shard with its data; it may be gone already."""

    def folders(self, parent: str) -> int:
        """How many folders a tenant has on disk, its own included."""

    def remove_parent(self, parent: str) -> None:
        """Delete a tenant's folder with whatever lies in it."""

    def close_idle(self, seconds: float) -> None:
        """Close shards that nobody used for so long."""

    def close_all(self) -> None:
        """Close everything, durably."""

    def __len__(self) -> int:
        """How many are open."""


@runtime_checkable
class WordShard(Shard, Protocol):
    """A shard whose sparse arm reads words. What it finds is what `Shard.nearest` may find."""

    def matching(self, asked: WordQuery, limit: int, allowed: Allowed) -> list[tuple[int, float]]:
        """The points that match best with their scores, best first."""

    def add_words(self, terms: Sequence[tuple[int, FieldTerms]]) -> None:
        """Give points their terms; `flush` makes them durable."""


@runtime_checkable
class WordShards(Shards, Protocol):
    """Shards whose sparse arm reads words."""

    def lacks_words(self, folder: str) -> bool:
        """Whether a shard has points that the arm does not know; nothing is opened for it."""

    def words_are_complete(self, folder: str) -> None:
        """Remember that an open shard lacks none."""


def payload(document: Document, version: int, chunk: Chunk) -> dict[str, Any]:
    """A chunk's payload: what filters look at, and its texts."""
    values: dict[str, Any] = {
        "document_id": document.id,
        "version": version,
        "text": chunk.text,
        "language": chunk.language,
        "source": document.source,
        "title": document.title,
        "heading": chunk.heading,
        METADATA: facets(document.metadata_json),
    }
    if chunk.normalized_text != chunk.text:
        values["normalized_text"] = chunk.normalized_text
    if chunk.page is not None:
        values["page"] = chunk.page
    if document.access:
        values[ACCESS] = list(document.access)
    return values


def stored_chunk(document: Document, index: int, payload: Mapping[str, Any]) -> StoredChunk:
    """A chunk as it is found, from its document's facts and its payload."""
    identity = f"{document.id}\0{document.content_hash}".encode()
    return StoredChunk(
        chunk_id=f"{hashlib.sha256(identity).hexdigest()[:24]}-{index}",
        document_id=document.id,
        text=payload["text"],
        source=document.source,
        title=document.title,
        page=payload.get("page"),
        heading=payload["heading"],
        metadata_json=document.metadata_json,
        language=payload["language"],
    )
