"""What a query asks of the store: its vectors, and how much each arm counts."""

import asyncio
import math
from collections.abc import Mapping
from functools import partial

from services.retrieve.encoding import Encoder
from services.retrieve.fusion import (
    DENSE_ONLY,
    SPARSE_ONLY,
    arm_weights,
    covered_languages,
)
from services.retrieve.ports import (
    Analyzer,
    ArmWeights,
    Collection,
    CollectionKey,
    SparseVector,
    Store,
    StoreQuery,
    WordQuery,
)
from services.retrieve.results import Plan
from services.retrieve.searches import Reasons, Search
from services.retrieve.wording import Wording, parse, word_query
from services.text.language import detect_language

SAME_LANGUAGE = 0.95
"""Share of a collection in the query's language from which its IDF is taken as it is."""
LEAST_IDF = 0.01
SHORT_QUERY = 300
"""Characters of a query that is analysed in the event loop."""


class Planner:
    """Plans the queries of one search in one collection."""

    def __init__(
        self,
        *,
        store: Store,
        encoder: Encoder,
        analyzer: Analyzer,
        key: CollectionKey,
        collection: Collection,
        measured: Mapping[str, ArmWeights],
        reads_words: bool = False,
    ) -> None:
        """Args:
        store: where the collection is.
        encoder: its encoder.
        analyzer: its analyser.
        key: its name within its tenant.
        collection: as the caller may read it.
        measured: weights by language, as calibrated.
        reads_words: whether the sparse arm does: a query may then have operators.
        """
        self._store = store
        self._encoder = encoder
        self._analyzer = analyzer
        self._key = key
        self._collection = collection
        self._measured = measured
        self._reads_words = reads_words

    async def plan(self, request: Search, query: str) -> Plan:
        """Vectors and weights of one query; `Results` sets how many candidates it needs."""
        wording = parse(query) if self._reads_words else Wording(query, query)
        query = wording.plain or query
        language = request.language or detect_language(query)
        dense: bytes | None = None
        # A short question takes less time than handing it to a thread.
        sparse = analyzed = (
            self._analyzer.query(query, language)
            if len(query) <= SHORT_QUERY
            else await asyncio.to_thread(self._analyzer.query, query, language)
        )
        if request.mode != "dense":
            sparse = await self._within_language(sparse, language)
        dense_languages: tuple[str, ...] | None = None
        if request.mode == "sparse":
            weights = SPARSE_ONLY
        elif request.mode == "dense":
            weights = DENSE_ONLY
            dense = (await self._encoder.query(query, stream=self._key.tenant)).dense
        elif request.weights is not None:
            weights = request.weights
            if weights.dense:
                dense = (await self._encoder.query(query, stream=self._key.tenant)).dense
        else:
            weights, dense, dense_languages = await self._weigh(
                query, language, has_terms=bool(sparse.indices)
            )
        plan = StoreQuery(
            top_k=1,
            depth=1,
            weights=weights,
            dense=dense if weights.dense else None,
            sparse=sparse if weights.sparse else None,
            filter=request.filter,
            dense_languages=dense_languages,
            attributes=request.attributes,
            words=await self._words(wording, analyzed, sparse) if weights.sparse else None,
        )
        left_out = self._left_out(request, language, weights)
        return Plan(plan, Reasons(query, language, weights, *left_out))

    async def _words(
        self, wording: Wording, before: SparseVector, after: SparseVector
    ) -> WordQuery | None:
        if not self._reads_words:
            return None
        if len(wording.plain) <= SHORT_QUERY:
            return word_query(wording, self._analyzer, before, after)
        return await asyncio.to_thread(word_query, wording, self._analyzer, before, after)

    def _left_out(self, request: Search, language: str, weights: ArmWeights) -> tuple[str, str]:
        """Why the dense and the sparse arm are not asked; empty for one that is."""
        if request.mode != "hybrid":
            asked = f"mode is {request.mode}"
            return ("", asked) if request.mode == "dense" else (asked, "")
        dense = sparse = ""
        if request.weights is not None:
            asked = "the request gives it no weight"
            return asked if not weights.dense else "", asked if not weights.sparse else ""
        if not weights.dense:
            facts = self._encoder.facts.as_in(self._collection)
            if not facts.covers(language):
                dense = f"the encoder does not represent the query's language, {language}"
            elif not covered_languages(facts, self._collection.languages, {}):
                dense = "the encoder represents none of the collection's languages"
            elif language in self._measured:
                dense = "calibration found it to be of no use in this collection"
            else:
                dense = "the encoder's ranking is of no use for this query or collection"
        if not weights.sparse:
            sparse = "the query has no terms, only function words"
            if language in self._measured and not self._measured[language].sparse:
                sparse = "calibration found it to be of no use in this collection"
        return dense, sparse

    async def _within_language(self, query: SparseVector, language: str) -> SparseVector:
        """A query whose terms count as they would among the chunks of its own language.

        The store's IDF is over all chunks. Where most are in other languages, every term looks
        rare, and the common ones gain most: ln((N + 1) / (n + .5)) for n of N chunks becomes that
        of a part of them when the logarithm of the part is added.
        """
        total = sum(self._collection.languages.values())
        part = self._collection.languages.get(language, 0) / total if total else 0.0
        if not 0.0 < part < SAME_LANGUAGE or not query.indices:
            return query
        weights = await self._store.term_weights(self._key, query.indices)
        values = [
            value * max(idf + math.log(part), LEAST_IDF) / idf if idf > 0 else value
            for value, idf in zip(query.values, weights, strict=True)
        ]
        return SparseVector(query.indices, tuple(values))

    async def _weigh(
        self, query: str, language: str, *, has_terms: bool
    ) -> tuple[ArmWeights, bytes | None, tuple[str, ...] | None]:
        """Weights, vector and languages of the dense arm of a hybrid search."""
        facts = self._encoder.facts.as_in(self._collection)
        languages = self._collection.languages
        weigh = partial(
            arm_weights, facts, language, collection_languages=languages, has_terms=has_terms,
            measured=self._measured,
        )  # fmt: skip
        weights = weigh(unknown=0.0)
        if not weights.dense:
            return weights, None, None  # not worth encoding
        encoded = await self._encoder.query(query, stream=self._key.tenant)
        weights = weigh(unknown=encoded.unknown)
        covered = covered_languages(facts, languages, self._measured)
        mixed = len(covered) < sum(chunks > 0 for chunks in languages.values())
        return weights, encoded.dense, covered if mixed else None
