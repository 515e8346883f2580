"""Learning from collections in the background: average lengths, and what each arm is worth.

A collection is due when it is about three times as large as when it was learned from last (30,
100, 300, 1,000 … chunks), or has shrunk to a third. A stream of documents that ends and a search
that passes by both look. One collection is learned from at a time, and its forward passes queue
behind those of questions.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
from prometheus_client import Histogram

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
    Analyzer,
    Collection,
    CollectionKey,
    IndexedChunk,
    Store,
)
from services.retrieve.profiles import Profile, dump, parse
from services.retrieve.texts import all_field_terms, indexed_text
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
_PAGE_CHUNKS = 100
_ANALYZED = 50
"""Chunks that are analysed before other threads of the process get a chance."""


class Learning:
    """The background worker. Belongs to the loop that calls `start`."""

    def __init__(self, store: Store, encoder: Encoder, analyzer: Analyzer) -> None:
        self._store = store
        self._encoder = encoder
        self._analyzer = analyzer
        self._due: dict[CollectionKey, asyncio.Event] = {}
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._failed: dict[str, int] = {}

    def start(self) -> None:
        self._worker = asyncio.create_task(self._work(), name="learning")

    async def aclose(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    def notice(self, key: CollectionKey, collection: Collection) -> Profile:
        """The collection's profile; when it is out of date, learning begins in the background."""
        profile = parse(collection.profile)
        if self._is_due(collection, profile) and key not in self._due:
            self._due[key] = asyncio.Event()
            self._wake.set()
        return profile

    async def settled(self, key: CollectionKey) -> None:
        """Return once nothing is to be learned from a collection that was noticed."""
        learned = self._due.get(key)
        if learned is None or self._worker is None:
            return
        waiting = asyncio.ensure_future(learned.wait())
        try:
            await asyncio.wait({waiting, self._worker}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    def _is_due(self, collection: Collection, profile: Profile) -> bool:
        if collection.analyzer != self._analyzer.id or collection.encoder != self._encoder.facts.id:
            return False
        if self._failed.get(collection.generation, -1) == collection.all_chunks:
            return False
        if collection.lacks_words:
            return True
        if profile.unfinished or profile.encoder not in ("", collection.encoder):
            return True
        chunks = collection.all_chunks
        return chunks >= FIRST_CHUNKS and not (
            profile.chunks / GROWTH < chunks < profile.chunks * GROWTH * 0.99
        )

    async def _work(self) -> None:
        while True:
            if not self._due:
                self._wake.clear()
                await self._wake.wait()
                continue
            key = next(iter(self._due))
            collection: Collection | None = None
            try:
                collection = await self._store.get_collection(key)
                if collection.lacks_words and self._is_due(collection, parse(collection.profile)):
                    await self._give_words(key)
                    collection = replace(collection, lacks_words=False)
                if self._is_due(collection, parse(collection.profile)):
                    with SECONDS.time():
                        await self.learn(key, collection)
            except NotFound:
                log.debug("a collection was deleted before it was learned from")
            except RagmeshError:
                log.warning("learning from a collection failed", exc_info=True)
                if collection is not None:
                    self._failed[collection.generation] = collection.all_chunks
            finally:
                self._due.pop(key).set()

    async def learn(self, key: CollectionKey, collection: Collection) -> Profile:
        """Measure lengths and arms, keep the profile, and weigh chunks again when that is due."""
        started = time.monotonic()
        before = parse(collection.profile)
        sample = await self._store.sample(key, SAMPLE_CHUNKS, seed=collection.all_chunks)
        lengths = await asyncio.to_thread(self._lengths, sample)
        averages, drifted = _averages(before.averages, lengths)
        languages: dict[str, Calibration] = {}
        for language in sorted({one.chunk.language for one in sample}):
            found = await self._calibrate(sample, language, averages)
            if found is not None:
                languages[language] = found
        profile = Profile(
            chunks=collection.all_chunks, encoder=collection.encoder, at=time.time(),
            seconds=round(time.monotonic() - started, 3), averages=averages,
            languages=languages,
        )  # fmt: skip
        if drifted or before.unfinished:
            # First the averages, so that what comes in meanwhile is weighed by them; then the
            # rest. A search in between compares weights that differ by what a length has drifted.
            # Whoever stops before the end begins again.
            begun = replace(before, averages=averages, unfinished=True, languages=languages)
            await self._store.set_profile(key, collection.generation, dump(begun))
            await self._reweigh(key, collection, profile)
        await self._store.set_profile(key, collection.generation, dump(profile))
        log.info(
            "learned from a collection",
            extra={"chunks": profile.chunks, "seconds": profile.seconds, "reweighed": drifted},
        )
        return profile

    def _lengths(self, sample: Sequence[IndexedChunk]) -> dict[str, list[tuple[float, ...]]]:
        found: dict[str, list[tuple[float, ...]]] = {}
        for one in sample:
            text = indexed_text(one.title, one.chunk)
            found.setdefault(one.chunk.language, []).append(self._analyzer.lengths(text))
        return found

    async def _reweigh(self, key: CollectionKey, collection: Collection, profile: Profile) -> None:
        """Give every chunk the weights that belong to the profile's averages."""
        after = 0
        while page := await self._store.scan(key, after, _PAGE_CHUNKS):
            vectors = await asyncio.to_thread(
                lambda chunks: [
                    (one.position, self._analyzer.document(
                        indexed_text(one.title, one.chunk), one.chunk.language, profile.averages))
                    for one in chunks
                ],
                page,
            )  # fmt: skip
            await self._store.replace_sparse(key, vectors)
            after = page[-1].position
        log.info("weighed a collection's chunks again", extra={"chunks": collection.all_chunks})

    async def _give_words(self, key: CollectionKey) -> None:
        """Give the arm that reads words every chunk that was indexed without it."""
        after, chunks = 0, 0
        while page := await self._store.scan(key, after, _PAGE_CHUNKS):
            pairs = [(one.title, one.chunk) for one in page]
            terms = await asyncio.to_thread(all_field_terms, self._analyzer, pairs)
            positions = [one.position for one in page]
            await self._store.add_words(key, list(zip(positions, terms, strict=True)), last=False)
            after, chunks = page[-1].position, chunks + len(page)
        await self._store.add_words(key, [], last=True)
        log.info("gave the word index a collection's chunks", extra={"chunks": chunks})

    async def _calibrate(
        self,
        sample: Sequence[IndexedChunk],
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
            self._judge, sample, language, questions, queries, stand_ins, averages, unknown
        )

    def _judge(  # noqa: PLR0917  handed on by `to_thread`
        self,
        sample: Sequence[IndexedChunk],
        language: str,
        questions: Sequence[PseudoQuestion],
        queries: Any,
        stand_ins: Any,
        averages: Mapping[str, tuple[float, ...]],
        unknown: float,
    ) -> Calibration | None:
        matrix = np.stack([np.frombuffer(one.dense, "<f4") for one in sample])
        matrix = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)
        index = SparseIndex(
            [
                self._analyzer.document(
                    indexed_text(one.title, one.chunk), one.chunk.language, averages
                )
                for one in sample
            ]
        )

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


def _averages(
    before: Mapping[str, tuple[float, ...]], lengths: Mapping[str, Sequence[tuple[float, ...]]]
) -> tuple[dict[str, tuple[float, ...]], bool]:
    """Average lengths by language, those before where they still hold, and whether any drifted."""
    averages, drifted = dict(before), False
    for language, measured in lengths.items():
        now = tuple(round(max(1.0, fmean(column)), 1) for column in zip(*measured, strict=True))
        held = before.get(language)
        if held is None or any(
            abs(new - old) > MAX_DRIFT * old for new, old in zip(now, held, strict=True)
        ):
            averages[language] = now
            drifted = True
    return averages, drifted
