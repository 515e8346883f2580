"""Learning from collections in the background: average lengths, and what each arm is worth.

A collection is due when it is about three times as large as when it was learned from last (30,
100, 300, 1,000 … chunks), or has shrunk to a third. Whoever publishes documents looks, and a search
that passes by does. One collection is learned from at a time, and its forward passes queue behind
those of questions.

Chunks are weighed by their language's average length as it was when they came. While a language has
few chunks they are weighed again when the average has drifted; later the average stays what it is:
all of them are then weighed alike, by a length that is a little off, and no large collection is
ever written anew for it. `ragmesh collections reindex` begins with the length of what is there.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import numpy as np
from prometheus_client import Histogram

from services.retrieve.analysis import Analysis
from services.retrieve.calibration import (
    MIN_QUESTIONS,
    UNCOVERED,
    Calibration,
    PseudoQuestion,
    Scores,
    SparseIndex,
    judge,
    pose,
)
from services.retrieve.encoding import Encoder
from services.retrieve.ports import (
    Collection,
    CollectionKey,
    IndexedChunk,
    SparseVector,
    Store,
)
from services.retrieve.profiles import Profile, dump, parse
from services.retrieve.texts import indexed_text
from services.runtime.errors import NotFound, RagmeshError

log = logging.getLogger(__name__)

SECONDS = Histogram(
    "ragmesh_retrieve_calibration_seconds",
    "Time of learning from a collection.",
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100),
)

FIRST_CHUNKS = 30
GROWTH = 3.0
SAMPLE_CHUNKS = 1000
MAX_DRIFT = 0.2
"""Change of an average length from which chunks are weighed again."""
MAX_WEIGHED = 10_000
"""Chunks of a language, about, that are weighed again."""
_ON_THEIR_WAY = 2000
"""Chunks, at most, that were weighed by what was known before and may still be published."""
_PAGE_CHUNKS = 100


@dataclass(slots=True)
class _Due:
    """A collection that is to be learned from."""

    learned: asyncio.Event = field(default_factory=asyncio.Event)
    whole: bool = False
    """Whether it is to be learned from as it is now, however little it has grown."""


class Learning:
    """The background worker. Belongs to the loop that calls `start`."""

    def __init__(self, store: Store, encoder: Encoder, analysis: Analysis) -> None:
        self._store = store
        self._encoder = encoder
        self._analysis = analysis
        self._analyzer = analysis.analyzer
        self._due: dict[CollectionKey, _Due] = {}
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._failed: dict[str, int] = {}
        self._beginning = asyncio.Lock()

    def start(self) -> None:
        self._worker = asyncio.create_task(self._work(), name="learning")

    async def aclose(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    def notice(
        self, key: CollectionKey, collection: Collection, *, since: int | None = None
    ) -> Profile:
        """The collection's profile; when it is out of date, learning begins in the background.

        Args:
            key: the collection's.
            collection: its facts.
            since: the chunks that it had when a stream that now ends began. What was learned from a
                part of the stream is learned from the whole.
        """
        profile = parse(collection.profile)
        known = self._due.get(key)
        whole = since is not None and (known is not None or since < profile.chunks)
        if known is not None:
            known.whole |= whole
        elif self._is_due(collection, profile, whole=whole):
            self._due[key] = _Due(whole=whole)
            self._wake.set()
        return profile

    async def settled(self, key: CollectionKey) -> None:
        """Return once nothing is to be learned from a collection that was noticed."""
        due = self._due.get(key)
        if due is None or self._worker is None:
            return
        waiting = asyncio.ensure_future(due.learned.wait())
        try:
            await asyncio.wait({waiting, self._worker}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    async def begin(self, key: CollectionKey, texts: Mapping[str, Sequence[str]]) -> Profile:
        """The profile of a collection that chunks are about to come into.

        An empty collection that nothing was learned from takes its average lengths from them, where
        there are enough, so that little of what follows has to be weighed again.

        Args:
            key: the collection's.
            texts: indexed texts of chunks by language.
        """
        async with self._beginning:  # several batches of a stream are weighed side by side
            collection = await self._store.get_collection(key)
            profile = parse(collection.profile)
            enough = {
                language: some for language, some in texts.items() if len(some) >= FIRST_CHUNKS
            }
            if collection.all_chunks or profile.averages or not enough:
                return profile
            lengths = await self._lengths(enough)
            averages = {language: _mean(some) for language, some in lengths.items()}
            # Some are on their way already, weighed by the length of a typical chunk.
            begun = replace(
                profile,
                encoder=collection.encoder,
                averages=averages,
                unfinished=tuple(averages),
            )
            await self._store.set_profile(key, collection.generation, dump(begun))
            return begun

    def _is_due(self, collection: Collection, profile: Profile, *, whole: bool = False) -> bool:
        if collection.analyzer != self._analyzer.id or collection.encoder != self._encoder.facts.id:
            return False
        if self._failed.get(collection.generation, -1) == collection.all_chunks:
            return False
        if collection.lacks_words:
            return True
        if profile.unfinished or profile.encoder not in ("", collection.encoder):
            return True
        chunks = collection.all_chunks
        if chunks < FIRST_CHUNKS or (whole and chunks != profile.chunks):
            return chunks >= FIRST_CHUNKS
        return not profile.chunks / GROWTH < chunks < profile.chunks * GROWTH * 0.99

    async def _work(self) -> None:
        while True:
            if not self._due:
                self._wake.clear()
                await self._wake.wait()
                continue
            key, due = next(iter(self._due.items()))
            whole, due.whole = due.whole, False
            collection: Collection | None = None
            try:
                collection = await self._store.get_collection(key)
                if collection.lacks_words and self._is_due(collection, parse(collection.profile)):
                    await self._give_words(key)
                    collection = replace(collection, lacks_words=False)
                if self._is_due(collection, parse(collection.profile), whole=whole):
                    with SECONDS.time():
                        await self.learn(key, collection)
            except NotFound:
                log.debug("a collection was deleted before it was learned from")
            except RagmeshError:
                log.warning("learning from a collection failed", exc_info=True)
                if collection is not None:
                    self._failed[collection.generation] = collection.all_chunks
            finally:
                if not due.whole:  # else more has come in meanwhile, and that was all
                    self._due.pop(key).learned.set()

    async def learn(self, key: CollectionKey, collection: Collection) -> Profile:
        """Measure lengths and arms, keep the profile, and weigh chunks again when that is due."""
        started = time.monotonic()
        before = parse(collection.profile)
        sample = await self._store.sample(key, SAMPLE_CHUNKS, seed=collection.all_chunks)
        lengths = await self._lengths(by_language(sample))
        averages, drifted = self._averages(
            before, lengths, collection.all_chunks / max(len(sample), 1)
        )
        index = await self._sparse_index(sample, averages)
        languages: dict[str, Calibration] = {}
        for language in sorted({one.chunk.language for one in sample}):
            found = await self._calibrate(sample, index, language, averages)
            if found is not None:
                languages[language] = found
        profile = Profile(
            chunks=collection.all_chunks, encoder=collection.encoder, at=time.time(),
            seconds=round(time.monotonic() - started, 3), averages=averages,
            languages=languages,
        )  # fmt: skip
        if drifted:
            # First the averages, so that what comes in meanwhile is weighed by them; then the
            # rest. A search in between compares weights that differ by what a length has drifted.
            # Whoever stops before the end begins again.
            begun = replace(before, averages=averages, unfinished=drifted, languages=languages)
            await self._store.set_profile(key, collection.generation, dump(begun))
            now = await self._store.get_collection(key)
            await self._reweigh(key, drifted, averages, now.all_chunks + _ON_THEIR_WAY)
        await self._store.set_profile(key, collection.generation, dump(profile))
        log.info(
            "learned from a collection",
            extra={
                "chunks": profile.chunks,
                "seconds": profile.seconds,
                "reweighed": drifted,
            },
        )
        return profile

    async def _lengths(
        self, texts: Mapping[str, Sequence[str]]
    ) -> dict[str, list[tuple[float, ...]]]:
        return {language: await self._analysis.lengths(some) for language, some in texts.items()}

    def _averages(
        self, before: Profile, lengths: Mapping[str, Sequence[tuple[float, ...]]], times: float
    ) -> tuple[dict[str, tuple[float, ...]], tuple[str, ...]]:
        """Average lengths by language, those before where they hold; and the languages whose chunks
        are to be weighed again.

        Args:
            before: what was learned before.
            lengths: those of a sample.
            times: how many chunks one of the sample stands for.
        """
        averages, again = dict(before.averages), list[str]()
        for language, measured in lengths.items():
            now, held = _mean(measured), before.averages.get(language)
            if held is not None and language not in before.unfinished and _near(held, now):
                continue
            if len(measured) * times > MAX_WEIGHED:
                log.info(
                    "a language has too many chunks to be weighed again; a reindex would",
                    extra={"language": language, "weighed_by": held, "now": now},
                )
                continue
            averages[language] = now
            again.append(language)
        return averages, tuple(again)

    async def _reweigh(
        self,
        key: CollectionKey,
        languages: Sequence[str],
        averages: Mapping[str, tuple[float, ...]],
        most: int,
    ) -> None:
        """Give the first `most` chunks the weights that belong to the averages, as far as they are
        in one of the languages. Those that come in meanwhile have them already."""
        after = read = chunks = 0
        while read < most and (page := await self._store.scan(key, after, _PAGE_CHUNKS)):
            drifted = [one for one in page if one.chunk.language in languages]
            weights = await self._documents(drifted, averages)
            positions = [one.position for one in drifted]
            vectors = list(zip(positions, weights, strict=True))
            if vectors:
                await self._store.replace_sparse(key, vectors)
            after, read, chunks = page[-1].position, read + len(page), chunks + len(vectors)
        log.info("weighed chunks of a collection again", extra={"chunks": chunks})

    async def _documents(
        self, chunks: Sequence[IndexedChunk], averages: Mapping[str, tuple[float, ...]]
    ) -> list[SparseVector]:
        texts = [indexed_text(one.title, one.chunk) for one in chunks]
        languages = [one.chunk.language for one in chunks]
        return await self._analysis.documents(texts, languages, averages)

    async def _give_words(self, key: CollectionKey) -> None:
        """Give the arm that reads words every chunk that was indexed without it."""
        after, chunks = 0, 0
        while page := await self._store.scan(key, after, _PAGE_CHUNKS):
            pairs = [(one.title, one.chunk) for one in page]
            terms = await self._analysis.field_terms(pairs)
            positions = [one.position for one in page]
            await self._store.add_words(key, list(zip(positions, terms, strict=True)), last=False)
            after, chunks = page[-1].position, chunks + len(page)
        await self._store.add_words(key, [], last=True)
        log.info("gave the word index a collection's chunks", extra={"chunks": chunks})

    async def _sparse_index(
        self, sample: Sequence[IndexedChunk], averages: Mapping[str, tuple[float, ...]]
    ) -> SparseIndex:
        return await asyncio.to_thread(SparseIndex, await self._documents(sample, averages))

    async def _calibrate(
        self,
        sample: Sequence[IndexedChunk],
        index: SparseIndex,
        language: str,
        averages: Mapping[str, tuple[float, ...]],
    ) -> Calibration | None:
        if not self._encoder.facts.covers(language):
            return UNCOVERED
        questions = await asyncio.to_thread(pose, sample, language, len(sample))
        if len(questions) < MIN_QUESTIONS:
            return None
        asked = await self._encoder.prepare([one.text for one in questions], query=True)
        targets = await self._encoder.prepare([one.target for one in questions])
        unknown = fmean(one.unknown for one in (*asked, *targets))
        queries = (await self._encoder.encode(asked)).vectors
        stand_ins = (await self._encoder.encode(targets)).vectors
        return await asyncio.to_thread(
            self._judge, sample, index, language, questions, queries, stand_ins, averages, unknown
        )

    def _judge(  # noqa: PLR0917  handed on by `to_thread`
        self,
        sample: Sequence[IndexedChunk],
        index: SparseIndex,
        language: str,
        questions: Sequence[PseudoQuestion],
        queries: Any,
        stand_ins: Any,
        averages: Mapping[str, tuple[float, ...]],
        unknown: float,
    ) -> Calibration | None:
        matrix = np.stack([np.frombuffer(one.dense, "<f4") for one in sample])
        matrix = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)

        def dense(number: int) -> tuple[Scores, float]:
            cosines: Scores = (matrix @ queries[number]).astype(np.float64)
            return cosines, float(stand_ins[number] @ queries[number])

        def sparse(number: int) -> tuple[Scores, float]:
            one = questions[number]
            return index.score(
                self._analyzer.query(one.text, language),
                self._analyzer.document(one.target, language, averages),
            )

        return judge(questions, dense, sparse, unknown=unknown)


def by_language(sample: Sequence[IndexedChunk]) -> dict[str, list[str]]:
    """Indexed texts by language."""
    texts: dict[str, list[str]] = {}
    for one in sample:
        texts.setdefault(one.chunk.language, []).append(indexed_text(one.title, one.chunk))
    return texts


def _mean(lengths: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """The averages of a language's fields."""
    return tuple(round(max(1.0, fmean(column)), 1) for column in zip(*lengths, strict=True))


def _near(before: tuple[float, ...], now: tuple[float, ...]) -> bool:
    """Whether averages have not drifted."""
    pairs = zip(before, now, strict=True)
    return all(abs(new - old) <= MAX_DRIFT * old for old, new in pairs)
