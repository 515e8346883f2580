"""One collection's whoosh index.

Chunks are added as they come and seen after `flush`. A commit never merges: segments are merged by
another process, and the next commit takes the merged one over.
"""

import logging
import shutil
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from whoosh.idsets import BitSet
from whoosh.index import TOC, FileIndex
from whoosh.reading import SegmentReader, TermNotFound
from whoosh.searching import Searcher
from whoosh.writing import SegmentWriter

from services.retrieve.adapters.conditions import translate
from services.retrieve.adapters.points import Allowed
from services.retrieve.adapters.whoosh import schema
from services.retrieve.adapters.whoosh.merge import MERGING, NAME, Merge, due
from services.retrieve.adapters.whoosh.storage import DurableStorage, sync_folder
from services.retrieve.ports import FieldTerms, WordQuery

log = logging.getLogger(__name__)

_MEMORY_MB = 64
"""Postings of a commit that are held in memory; more of them go to files meanwhile."""
_COMMIT_CHUNKS = 4096
"""Chunks after which a commit is made that nobody asked for: what is not current is hidden."""
_FILTERS = 32
"""Filters whose chunks are remembered until the next commit."""
_HIDDEN = 512


class WordIndex:
    """Chunks by their words. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Open the index, or create it where nothing is.

        Raises:
            Exception: of any kind, as whoosh has none of its own for what is broken.
        """
        self._folder = folder
        storage = DurableStorage(str(folder)).create()
        _tidy(folder)
        if TOC._latest_generation(storage, NAME) < 0:
            self._index = FileIndex.create(storage, schema.schema(), NAME)
        else:
            self._index = FileIndex(storage, schema.schema(), NAME)
        self._searcher = self._new_searcher()
        self._writer: SegmentWriter | None = None
        self._added: set[int] = set()
        self._gone: set[int] = set()
        """Deleted, which a search only sees after the commit."""
        self._filters: OrderedDict[Any, BitSet | None] = OrderedDict()
        self._merge: Merge | None = None
        self._gone_in_merge: set[int] = set()

    # Writing

    def add(self, chunks: Iterable[tuple[int, Mapping[str, Any], FieldTerms]]) -> None:
        """Write chunks, given with their points and payloads, in place of what they were."""
        made = [(point, schema.document(point, payload, terms)) for point, payload, terms in chunks]
        self.delete([point for point, _ in made])
        for point, document in made:
            self._open_writer().add_document(**document)
            self._added.add(point)
        if len(self._added) >= _COMMIT_CHUNKS:
            self.flush()

    def delete(self, points: Sequence[int]) -> None:
        """Delete chunks; some may not exist."""
        if self._added.intersection(points):
            self.flush()  # what a writer has added it cannot delete
        found = [place for point in points for place in self._places(point)]
        for place in found:
            self._open_writer().delete_document(place)
        self._gone.update(points if found else ())
        if self._merge is not None:
            self._gone_in_merge.update(points)

    def flush(self) -> None:
        """Make everything durable and seen."""
        merged = self._merged()
        if self._writer is None and merged is None:
            return
        writer = self._open_writer()
        self._writer = None
        self._added.clear()
        self._gone.clear()
        try:
            if merged is None:
                writer.commit(merge=False)
            else:
                writer.commit(mergetype=lambda _, segments: self._take_over(segments, merged))
        except BaseException:
            if not writer.is_closed:
                writer.writelock.release()  # or nobody could write again
            raise
        # Not by refresh(): it keeps the segments that a commit has dropped.
        self._searcher.close()
        self._searcher = self._new_searcher()
        self._filters.clear()
        self._begin_merge()

    def close(self) -> None:
        """Close it durably."""
        self._stop_merge()
        self.flush()
        self._stop_merge()  # that very commit may have begun one
        self._searcher.close()
        self._index.close()

    def _stop_merge(self) -> None:
        if self._merge is not None:
            self._merge.stop()
            self._merge = None

    def _new_searcher(self) -> Searcher:
        return self._index.searcher(weighting=schema.weighting())

    def _open_writer(self) -> SegmentWriter:
        if self._writer is None:
            self._writer = SegmentWriter(self._index, limitmb=_MEMORY_MB)
        return self._writer

    def _places(self, point: int) -> Iterator[int]:
        """Where whoosh has a chunk; deleted ones are left out."""
        reader = self._searcher.reader()
        text = reader.schema["point"].to_bytes(point)
        try:
            matcher = reader.postings("point", text)
        except TermNotFound:
            return
        while matcher.is_active():
            yield matcher.id()
            matcher.next()

    # Merging

    def _begin_merge(self) -> None:
        if self._merge is None:
            segments = self._index._read_toc().segments
            chosen = due([(one.segment_id(), one.doc_count_all()) for one in segments])
            if chosen:
                self._gone_in_merge.clear()
                self._merge = Merge(self._folder, chosen)

    def _merged(self) -> Merge | None:
        """A merge that has ended well, which this returns only once."""
        merge = self._merge
        if merge is None or (succeeded := merge.poll()) is None:
            return None
        self._merge = None
        if succeeded:
            return merge
        log.warning("segments of the word index could not be merged")
        merge.stop()
        return None

    def _take_over(self, segments: Sequence[Any], merge: Merge) -> list[Any]:
        """The segments of the next commit: the merged one in place of those it was made of."""
        inside = DurableStorage(str(self._folder / MERGING))
        (new,) = TOC.read(inside, NAME, schema=self._index.schema).segments
        name = new.make_filename(new.COMPOUND_EXT)
        (self._folder / MERGING / name).rename(self._folder / name)
        sync_folder(self._folder)
        reader = SegmentReader(self._index.storage, self._index.schema, new)
        for point in self._gone_in_merge:
            try:
                matcher = reader.postings("point", reader.schema["point"].to_bytes(point))
            except TermNotFound:
                continue
            while matcher.is_active():
                new.delete_document(matcher.id())
                matcher.next()
        reader.close()
        merge.stop()
        kept = [one for one in segments if one.segment_id() not in merge.segments]
        return [new, *kept]

    def settle(self) -> None:
        """Wait until nothing is to be merged any more; for tests and benchmarks."""
        self.flush()
        self._begin_merge()
        while self._merge is not None:
            self._merge.wait()
            self.flush()

    # Reading

    def search(self, asked: WordQuery, limit: int, allowed: Allowed) -> list[tuple[int, float]]:
        """Points with their scores, best first."""
        if self._writer is None and self._merge is not None and self._merge.poll() is not None:
            self.flush()  # fewer segments, faster searches
        searcher = self._searcher
        rarity = {
            (name, term): searcher.idf(name, term)
            for name, term in dict.fromkeys(schema.terms_of(asked))
            if searcher.doc_frequency(name, term)
        }
        query = schema.to_query(asked, rarity)
        seen = self._filtered(allowed)
        if seen is not None and not seen:  # whoosh takes an empty set for no filter
            return []
        points = searcher.reader().column_reader("point") if searcher.doc_count() else ()
        unseen = allowed.hidden | self._gone
        wanted = limit + min(len(unseen), _HIDDEN)
        while True:
            found = searcher.search(query, limit=wanted, filter=seen).top_n
            hits = [(int(points[place]), float(score)) for score, place in found]
            visible = [one for one in hits if one[0] not in unseen][:limit]
            if len(visible) == limit or len(found) < wanted:
                return visible
            wanted *= 4

    def _filtered(self, allowed: Allowed) -> BitSet | None:
        """Places of the chunks that may be found; None for all."""
        languages = None if allowed.languages is None else tuple(allowed.languages)
        key = (allowed.filter, languages, allowed.readable)
        if key not in self._filters:
            condition = translate(
                schema.WhooshDialect(),
                allowed.filter,
                languages=languages,
                readable=allowed.readable,
            )
            found: BitSet | None = None
            if condition is not None:
                places = self._searcher.docs_for_query(condition.normalize())
                found = BitSet(places, self._searcher.doc_count_all())
            self._filters[key] = found
            if len(self._filters) > _FILTERS:
                self._filters.popitem(last=False)
        return self._filters[key]

    def has(self, point: int) -> bool:
        """Whether a chunk is there, or on its way."""
        return point in self._added or any(True for _ in self._places(point))

    def count(self) -> int:
        """Chunks, current or not, that a search sees."""
        return int(self._searcher.doc_count())

    def segments(self) -> int:
        """Segments of the last commit."""
        return len(self._index._read_toc().segments)


def _tidy(folder: Path) -> None:
    """Remove what a process left that was killed: whoosh removes old segments itself."""
    shutil.rmtree(folder / MERGING, ignore_errors=True)
    shutil.rmtree(folder / f"{NAME}.tmp", ignore_errors=True)
    for table in folder.glob(f"_{NAME}_*.toc.*"):
        table.unlink()
