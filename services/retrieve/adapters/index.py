"""Collections of one store: catalog and shards together, one operation at a time.

Publishing a batch: its versions are named orphans (commit), its points are written and flushed,
then one commit makes the versions current and the replaced ones orphans, then their points go.
Searches leave out the points of orphans, so a document changes at the commit and at no other
moment. Whatever dies in between, orphans are removed when the collection is opened next.
"""

import bisect
import itertools
import logging
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from services.retrieve.access import id_taken, may_read
from services.retrieve.adapters.catalog import (
    Catalog,
    Row,
    Totals,
    describe,
    document_changed,
    new_folder,
    not_found,
    restricted,
    tenant_digest,
)
from services.retrieve.adapters.points import (
    Allowed,
    Shard,
    Shards,
    Wait,
    WordShard,
    WordShards,
    index_of,
    point_id,
    points_of,
    stored_chunk,
    version_of,
    wait_here,
)
from services.retrieve.fusion import fuse
from services.retrieve.ports import (
    Attributes,
    Candidate,
    Chunk,
    Collection,
    CollectionKey,
    Document,
    EncodedChunk,
    FieldTerms,
    IndexedChunk,
    NewCollection,
    Published,
    PublishStatus,
    SparseVector,
    StoredChunk,
    StoreQuery,
    TenantContents,
)
from services.runtime.errors import (
    NotFound,
    Unavailable,
)

log = logging.getLogger(__name__)

LEAST_FREE_BYTES = 8 * 1024 * 1024

READ_POINTS = 50
"""Chunks that are read together with their vectors, 2 to 3 ms; searches have their turn between."""
MAX_DOCUMENTS = 20_000
"""Documents whose facts are kept for searches."""
MAX_SEEN = 1000
"""Callers whose view of a collection is kept summed up."""


@dataclass(slots=True)
class _State:
    """What is known of a collection while the process lives."""

    row: Row
    totals: dict[tuple[str, ...], Totals]
    """What is current, by access list."""
    hidden: dict[int, int]
    """Orphaned versions whose points may lie in the shard, with their chunks."""
    leftover: bool = False
    """Orphans of an earlier process are still to be removed."""
    hidden_points: frozenset[int] | None = None
    """Points of `hidden`; None until they are asked for."""
    removed: list[int] = field(default_factory=list)
    """Orphans whose points are deleted, but not flushed yet."""
    seen: dict[Attributes, Totals] = field(default_factory=dict)
    """Sums of `totals` by caller, as long as they hold."""

    def count(self, document: Document, languages: Counter[str], sign: int) -> None:
        totals = self.totals.setdefault(document.access, Totals())
        totals.add(1, document.chunks, languages, sign)
        if not totals.documents:
            del self.totals[document.access]
        self.seen.clear()

    def hide(self, version: int, chunks: int) -> None:
        self.hidden[version] = chunks
        self.hidden_points = None

    def unhide(self, version: int) -> None:
        del self.hidden[version]
        self.hidden_points = None

    def concealed(self) -> frozenset[int]:
        """The points that searches must not find."""
        if self.hidden_points is None:
            self.hidden_points = frozenset(
                point
                for version, chunks in self.hidden.items()
                for point in points_of(version, chunks)
            )
        return self.hidden_points

    def readable(self, attributes: Attributes) -> Totals:
        """What a caller with these attributes may read."""
        known = self.seen.get(attributes)
        if known is None:
            if len(self.seen) >= MAX_SEEN:
                self.seen.clear()
            known = self.seen[attributes] = Totals()
            for access, totals in self.totals.items():
                if may_read(access, attributes):
                    known.add(totals.documents, totals.chunks, totals.languages, 1)
        return known

    @property
    def documents(self) -> int:
        return sum(totals.documents for totals in self.totals.values())

    @property
    def chunks(self) -> int:
        return sum(totals.chunks for totals in self.totals.values())

    @property
    def restricted(self) -> bool:
        """Whether any document has an access list."""
        return any(self.totals)

    def hides_from(self, attributes: Attributes) -> bool:
        """Whether there is a document that a caller with these attributes may not read."""
        return not all(may_read(access, attributes) for access in self.totals)


@dataclass(slots=True)
class _Staged:
    """A document that is being written."""

    collection: int
    version: int
    document: Document
    attributes: Attributes
    """Of who stages it: it may only replace what it may read."""
    written: set[int] = field(default_factory=set)
    languages: Counter[str] = field(default_factory=Counter)


class Index:
    """The operations of a store over an engine of points; each public method is one of `Store`."""

    def __init__(
        self,
        catalog: Catalog,
        shards: Shards,
        *,
        root: Path | None = None,
        now: Callable[[], float] = time.time,
        wait: Wait = wait_here,
    ) -> None:
        """Args:
        catalog: what exists.
        shards: the engine.
        root: the folder that both write to; None for memory.
        now: the clock.
        wait: how to wait for the disk.
        """
        self._root = root
        self._catalog = catalog
        self._shards = shards
        self._now = now
        self._wait = wait
        self._states: dict[int, _State] = {}
        self._by_key: dict[CollectionKey, _State] = {}
        self._documents: dict[int, Document] = {}
        """Facts of current documents by version."""
        self._staged: dict[str, _Staged] = {}
        self._next_version = self._catalog.next_version()
        for folder in self._catalog.dropped():
            self._shards.remove(folder)
            self._catalog.forget_dropped(folder)

    def close(self) -> None:
        self._shards.close_all()
        self._catalog.close()

    def close_idle(self, seconds: float) -> None:
        self._shards.close_idle(seconds)

    def disk_is_full(self) -> bool:
        """Whether a write can have failed for want of space; engines do not say why one fails."""
        root = self._root
        return root is not None and shutil.disk_usage(root).free < LEAST_FREE_BYTES

    # Collections

    def create_collection(self, new: NewCollection, limit: int) -> Collection:
        self._catalog.create(new, new_folder(new.key), self._now(), limit)
        self._wait(self._catalog.sync)
        return self.get_collection(new.key, ())

    def get_collection(self, key: CollectionKey, attributes: Attributes) -> Collection:
        state = self._state(key)
        found = describe(state.row, state.readable(attributes), state.chunks)
        return replace(found, lacks_words=self._lacks_words(state))

    def list_collections(
        self, tenant: str, after: str, limit: int, attributes: Attributes
    ) -> list[Collection]:
        names = self._catalog.names(tenant, after, limit)
        return [self.get_collection(CollectionKey(tenant, name), attributes) for name in names]

    def replace_collection(
        self, key: CollectionKey, by: CollectionKey, attributes: Attributes
    ) -> None:
        old, new = self._state(key), self._state(by)
        _check_unrestricted(old, attributes)
        self._catalog.replace(old.row, new.row)
        del self._by_key[key], self._by_key[by]
        new.row = self._catalog.find(key)
        self._wait(self._catalog.sync)
        self._forget(old)

    def delete_collection(self, key: CollectionKey, attributes: Attributes) -> int:
        state = self._state(key)
        _check_unrestricted(state, attributes)
        return self._delete_collection(state)

    def tenant_contents(self, tenant: str) -> TenantContents:
        folders = self._shards.folders(tenant_digest(tenant))
        return TenantContents(*self._catalog.contents(tenant), folders)

    def delete_tenant(self, tenant: str) -> TenantContents:
        removed = self.tenant_contents(tenant)
        for name in self._catalog.names(tenant):
            self._delete_collection(self._state(CollectionKey(tenant, name)))
        self._shards.remove_parent(tenant_digest(tenant))
        self._catalog.checkpoint()
        return removed

    def _delete_collection(self, state: _State) -> int:
        self._catalog.drop(state.row)
        del self._by_key[state.row.facts.key]
        self._wait(self._catalog.sync)
        self._forget(state)
        return state.documents

    def _forget(self, state: _State) -> None:
        """Remove what a collection that was dropped from the catalogue leaves behind."""
        row = state.row
        del self._states[row.id]
        for token in [t for t, one in self._staged.items() if one.collection == row.id]:
            del self._staged[token]
        self._shards.remove(row.folder)
        self._catalog.forget_dropped(row.folder)

    # Documents

    def check_documents(
        self, key: CollectionKey, versions: Sequence[tuple[str, str]], attributes: Attributes
    ) -> list[tuple[str, int]]:
        state = self._state(key)
        if state.hides_from(attributes):
            for document_id, _ in versions:
                self._check_replaceable(state, document_id, attributes)
        return self._catalog.unchanged(state.row.id, versions)

    def get_document(
        self, key: CollectionKey, document_id: str, attributes: Attributes
    ) -> Document:
        return self._current(self._state(key), document_id, attributes)[1]

    def list_documents(
        self, key: CollectionKey, after: str, limit: int, attributes: Attributes
    ) -> list[Document]:
        return self._catalog.list(self._catalog.find(key).id, after, limit, attributes)

    def list_chunks(
        self,
        key: CollectionKey,
        document_id: str,
        start: int,
        limit: int,
        attributes: Attributes,
    ) -> list[StoredChunk]:
        state = self._state(key)
        version, document, _ = self._current(state, document_id, attributes)
        stop = min(start + limit, document.chunks)
        points = [point_id(version, index) for index in range(start, stop)]
        payloads = self._shard(state).payloads(points) if points else {}
        return [
            stored_chunk(document, index_of(point), payloads[point])
            for point in points
            if point in payloads
        ]

    def read_document(
        self,
        key: CollectionKey,
        document_id: str,
        start: int,
        limit: int,
        attributes: Attributes,
    ) -> tuple[Document, list[IndexedChunk]]:
        state = self._state(key)
        version, document, _ = self._current(state, document_id, attributes)
        stop = min(start + limit, document.chunks)
        points = [point_id(version, index) for index in range(start, stop)]
        return document, self._indexed(state, points)

    def delete_document(self, key: CollectionKey, document_id: str, attributes: Attributes) -> int:
        state = self._state(key)
        version, document, languages = self._current(state, document_id, attributes)
        self._shard(state)  # what an earlier process left is removed before this joins it
        with self._catalog.transaction():
            self._catalog.remove(state.row.id, document_id)
            self._catalog.add_orphans(state.row.id, [(version, document.chunks)])
        state.hide(version, document.chunks)
        state.count(document, languages, -1)
        self._wait(self._catalog.sync)
        self._sweep(state, [version])
        return document.chunks

    # Writing

    def stage(
        self,
        key: CollectionKey,
        documents: Sequence[tuple[str, Document]],
        chunks: Sequence[EncodedChunk],
        attributes: Attributes,
    ) -> None:
        state = self._state(key)
        self._shard(state)  # what an earlier process left is removed before this joins it
        opened: dict[str, _Staged] = {}
        for token, document in documents:
            opened[token] = _Staged(state.row.id, self._next_version, document, attributes)
            self._next_version += 1
        sizes = [(one.version, one.document.chunks) for one in opened.values()]
        if sizes:
            with self._catalog.transaction():
                self._catalog.add_orphans(state.row.id, sizes)
            for version, size in sizes:
                state.hide(version, size)
            self._staged.update(opened)
            # The engine may write points down whenever it likes: what they are is known before.
            self._wait(self._catalog.sync)
        if not chunks:
            return
        staged = [self._staged_of(one.token) for one in chunks]
        pairs = list(zip(staged, chunks, strict=True))
        self._shard(state).upsert((owner.version, owner.document, one) for owner, one in pairs)
        for owner, one in pairs:
            owner.written.add(one.chunk.index)
            owner.languages[one.chunk.language] += 1

    def publish(
        self,
        key: CollectionKey,
        tokens: Sequence[str],
        removing: Sequence[tuple[str, str]] = (),
    ) -> list[Published]:
        state = self._state(key)
        staged = [self._staged_of(token) for token in tokens]
        for one in staged:
            if len(one.written) != one.document.chunks:
                raise ValueError("a document is published before all of its chunks are staged")
        self._shard(state).flush()
        outcomes: list[Published] = []
        replaced: list[int] = []
        changes: list[Callable[[], None]] = []
        with self._catalog.transaction():
            self._catalog.forget_orphans(state.removed)
            for document_id, content_hash in removing:
                self._remove(state, document_id, content_hash, replaced, changes)
            for one in staged:
                outcomes.append(self._publish(state, one, replaced, changes))
        state.removed.clear()
        for change in changes:
            change()
        for token in tokens:
            del self._staged[token]
        self._wait(self._catalog.sync)
        self._sweep(state, replaced)
        return outcomes

    def _publish(
        self,
        state: _State,
        one: _Staged,
        replaced: list[int],
        changes: list[Callable[[], None]],
    ) -> Published:
        """One document of a publishing transaction; what follows from the commit is deferred."""
        row, document, version = state.row.id, one.document, one.version
        now = self._now()
        try:
            old_version, old, old_languages = self._catalog.current(row, document.id)
        except NotFound:
            created, status = now, PublishStatus.INDEXED
        else:
            if not may_read(old.access, one.attributes):
                raise id_taken(document.id)  # its list came while this one was being written
            if old.content_hash == document.content_hash:
                replaced.append(version)
                return Published(document.id, old.chunks, PublishStatus.UNCHANGED.value)
            created, status = old.created_at, PublishStatus.REPLACED
            self._replace(state, (old_version, old, old_languages), replaced, changes)
        document = replace(
            document,
            created_at=document.created_at or created,
            updated_at=document.updated_at or now,
        )
        self._catalog.put(row, version, document, one.languages)
        self._catalog.forget_orphans([version])

        def show() -> None:
            state.unhide(version)
            state.count(document, one.languages, 1)

        changes.append(show)
        return Published(document.id, document.chunks, status.value)

    def _remove(
        self,
        state: _State,
        document_id: str,
        content_hash: str,
        replaced: list[int],
        changes: list[Callable[[], None]],
    ) -> None:
        """Delete one document in a publishing transaction, if it still has that content."""
        try:
            old = self._catalog.current(state.row.id, document_id)
        except NotFound:
            raise document_changed(document_id) from None
        if old[1].content_hash != content_hash:
            raise document_changed(document_id)
        self._replace(state, old, replaced, changes)

    def _replace(
        self,
        state: _State,
        old: tuple[int, Document, Counter[str]],
        replaced: list[int],
        changes: list[Callable[[], None]],
    ) -> None:
        version, document, languages = old
        self._catalog.remove(state.row.id, document.id)
        self._catalog.add_orphans(state.row.id, [(version, document.chunks)])
        replaced.append(version)

        def hide() -> None:
            state.hide(version, document.chunks)
            state.count(document, languages, -1)

        changes.append(hide)

    def discard(self, key: CollectionKey, tokens: Sequence[str]) -> None:
        versions = [self._staged.pop(token).version for token in tokens if token in self._staged]
        if versions:
            self._sweep(self._state(key), versions)

    # Reading

    def search(self, key: CollectionKey, query: StoreQuery) -> list[Candidate]:
        state = self._state(key)
        if not state.readable(query.attributes).chunks:
            return []
        shard = self._shard(state)
        allowed = Allowed(
            filter=query.filter,
            hidden=state.concealed(),
            readable=query.attributes if state.restricted else None,
        )
        dense: list[tuple[int, float]] = []
        sparse: list[tuple[int, float]] = []
        if query.dense is not None:
            covered = replace(allowed, languages=query.dense_languages)
            dense = shard.nearest(query.dense, query.depth, covered)
        if query.sparse is not None and query.sparse.indices:
            sparse = self._sparse(state, shard, query, allowed)
        fused = fuse(dense, sparse, query.weights, query.top_k)
        documents = self._documents_of(hit.id for hit in fused)
        fused = [hit for hit in fused if version_of(hit.id) in documents]
        points = [hit.id for hit in fused]
        payloads = shard.payloads(points) if points else {}
        vectors = shard.vectors(points) if points and query.vectors else {}
        terms = shard.terms(points) if points and query.terms else {}
        return [
            Candidate(
                stored_chunk(documents[version_of(hit.id)], index_of(hit.id), payloads[hit.id]),
                hit.score,
                hit.dense_rank,
                hit.sparse_rank,
                hit.dense_score,
                hit.sparse_score,
                vectors.get(hit.id),
                terms.get(hit.id),
            )
            for hit in fused
        ]

    def _sparse(
        self, state: _State, shard: Shard, query: StoreQuery, allowed: Allowed
    ) -> list[tuple[int, float]]:
        """Hits of the arm that reads words, or of the engine's own while that one lacks chunks."""
        if (
            query.words is not None
            and isinstance(shard, WordShard)
            and not self._lacks_words(state)
        ):
            return shard.matching(query.words, query.depth, allowed)
        return shard.nearest(query.sparse or SparseVector((), ()), query.depth, allowed)

    def _lacks_words(self, state: _State) -> bool:
        shards = self._shards
        return (
            state.chunks > 0
            and isinstance(shards, WordShards)
            and shards.lacks_words(state.row.folder)
        )

    def term_weights(self, key: CollectionKey, terms: Sequence[int]) -> list[float]:
        state = self._state(key)
        return self._shard(state).idf(terms) if state.documents else [0.0] * len(terms)

    # Learning

    def sample(self, key: CollectionKey, limit: int, seed: int) -> list[IndexedChunk]:
        state = self._state(key)
        versions = self._catalog.versions(state.row.id, 0, -1)
        ends = list(itertools.accumulate(chunks for _, chunks in versions))
        total = ends[-1] if ends else 0
        drawn = random.Random(seed).sample(range(total), min(limit, total))  # noqa: S311
        points = []
        for number in sorted(drawn):
            place = bisect.bisect_right(ends, number)
            version, chunks = versions[place]
            points.append(point_id(version, number - (ends[place] - chunks)))
        return self._indexed(state, points)

    def scan(self, key: CollectionKey, after: int, limit: int) -> list[IndexedChunk]:
        state = self._state(key)
        versions = self._catalog.versions(state.row.id, version_of(after), limit + 1)
        points = (point for one in versions for point in points_of(*one) if point > after)
        return self._indexed(state, list(itertools.islice(points, limit)))

    def _indexed(self, state: _State, points: Sequence[int]) -> list[IndexedChunk]:
        found = []
        for start in range(0, len(points), READ_POINTS):
            if start:
                self._wait(None)
            piece, shard = points[start : start + READ_POINTS], self._shard(state)
            payloads, vectors = shard.payloads(piece), shard.vectors(piece)
            for point in piece:
                one = payloads[point]
                text, page = one["text"], one.get("page")
                normalized = one.get("normalized_text", text)
                heading, language = one["heading"], one["language"]
                chunk = Chunk(index_of(point), text, normalized, heading, page, language)
                found.append(IndexedChunk(point, one["title"], chunk, vectors[point]))
        return found

    def replace_sparse(
        self, key: CollectionKey, vectors: Sequence[tuple[int, SparseVector]]
    ) -> None:
        state = self._state(key)
        documents = self._catalog.of_versions({version_of(point) for point, _ in vectors})
        current = {point: one for point, one in vectors if version_of(point) in documents}
        shard = self._shard(state)
        shard.upsert(
            (
                version_of(one.position),
                documents[version_of(one.position)],
                EncodedChunk("", one.chunk, one.dense, current[one.position]),
            )
            for one in self._indexed(state, list(current))
        )
        shard.flush()

    def add_words(
        self, key: CollectionKey, terms: Sequence[tuple[int, FieldTerms]], last: bool
    ) -> None:
        state = self._state(key)
        shard = self._shard(state)
        if not isinstance(shard, WordShard) or not isinstance(self._shards, WordShards):
            return
        current = self._catalog.of_versions({version_of(point) for point, _ in terms})
        shard.add_words([one for one in terms if version_of(one[0]) in current])
        if last:
            shard.flush()
            self._shards.words_are_complete(state.row.folder)

    def set_profile(self, key: CollectionKey, generation: str, profile: str) -> None:
        state = self._state(key)
        if state.row.folder == generation:
            self._catalog.set_profile(state.row.id, profile)
            state.row = replace(state.row, profile=profile)
            self._wait(self._catalog.sync)

    def stats(self) -> dict[str, int]:
        """Gauges for the metrics."""
        return {"open_shards": len(self._shards), "staged_documents": len(self._staged)}

    # Parts

    def _state(self, key: CollectionKey) -> _State:
        state = self._by_key.get(key)
        if state is None:
            row = self._catalog.find(key)
            state = self._states.get(row.id)
            if state is None:
                hidden = self._catalog.orphans(row.id)
                totals = self._catalog.totals(row.id)
                state = self._states[row.id] = _State(row, totals, hidden, leftover=bool(hidden))
            self._by_key[key] = state
        return state

    def _documents_of(self, points: Iterable[int]) -> dict[int, Document]:
        """Facts of the current documents that points belong to, by version."""
        versions = {version_of(point) for point in points}
        missing = [version for version in versions if version not in self._documents]
        if missing:
            if len(self._documents) > MAX_DOCUMENTS:
                self._documents.clear()
            self._documents.update(self._catalog.of_versions(missing))
        known = self._documents
        return {version: known[version] for version in versions if version in known}

    def _current(
        self, state: _State, document_id: str, attributes: Attributes
    ) -> tuple[int, Document, Counter[str]]:
        """A document's version, facts, and chunks by language.

        Raises:
            NotFound: DOCUMENT_NOT_FOUND, also for one that the caller may not read.
        """
        found = self._catalog.current(state.row.id, document_id)
        if not may_read(found[1].access, attributes):
            raise not_found()
        return found

    def _check_replaceable(self, state: _State, document_id: str, attributes: Attributes) -> None:
        try:
            document = self._catalog.current(state.row.id, document_id)[1]
        except NotFound:
            return
        if not may_read(document.access, attributes):
            raise id_taken(document_id)

    def _shard(self, state: _State) -> Shard:
        row, acknowledged = state.row, state.documents > 0
        shard = self._shards.open(row.folder, row.facts, expect_data=acknowledged)
        if state.leftover:
            state.leftover = False
            log.info("removing what an earlier process left", extra={"orphans": len(state.hidden)})
            self._sweep(state, list(state.hidden))
        return shard

    def _staged_of(self, token: str) -> _Staged:
        try:
            return self._staged[token]
        except KeyError:
            raise Unavailable(
                "ENGINE_UNAVAILABLE",
                "The engine was restarted while the document was being indexed.",
                retry_after=1.0,
            ) from None

    def _sweep(self, state: _State, versions: Sequence[int]) -> None:
        """Delete the points of orphans. Their rows go with the next flush and commit."""
        if not versions:
            return
        shard = self._shard(state)
        shard.delete([p for v in versions for p in points_of(v, state.hidden[v])])
        for version in versions:
            state.unhide(version)
            state.removed.append(version)
            self._documents.pop(version, None)


def _check_unrestricted(state: _State, attributes: Attributes) -> None:
    if state.hides_from(attributes):
        raise restricted()
