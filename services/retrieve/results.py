"""From the candidates of a search to the hits that were asked for.

In this order: the queries' rankings are fused, hits below a score or without relevance go, the best
of the rest are reranked, ordered anew for diversity, cut to so many hits of so many documents, and
get their highlights and neighbours. Without any of these wishes nothing is done, and nothing costs
time. Scores stay those of the arms whatever the order, so a lowest score means the same with a
reranker, without one, and where it was not done in time.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

from services.retrieve.diversity import diversify, term_similarity, vector_similarity
from services.retrieve.highlights import QueryTerms, highlight, query_terms
from services.retrieve.ports import (
    Analyzer,
    Candidate,
    Collection,
    CollectionKey,
    Matrix,
    Store,
    StoredChunk,
    StoreQuery,
)
from services.retrieve.relevance import Scale, is_relevant
from services.retrieve.reranking import Reading, Reranking
from services.retrieve.searches import (
    DEFAULT_TOP_K,
    Found,
    Hit,
    HitReasons,
    Reasons,
    RerankOutcome,
    Search,
)
from services.retrieve.texts import reranked_text
from services.runtime.deadlines import Budget
from services.runtime.errors import NotFound

MIN_DEPTH = 200
"""Candidates of each arm, at least: a fusion of few candidates forgets what one arm ranked low."""
MIN_POOL = 100
"""Candidates to choose from, at least, where not simply the first ones are taken."""
MAX_POOL = 4000
"""Candidates that are looked through for hits that fit, at most."""
MAX_DIVERSE = 1000
"""Candidates that are ordered for diversity, at most: its work grows with their square."""
_RANK_CONSTANT = 60
"""The k of reciprocal rank fusion (Cormack et al., SIGIR 2009), for the rankings of queries."""
_SIMULTANEOUS = 8
"""Documents whose neighbours are read at once."""


P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """One query, ready for the store."""

    query: StoreQuery
    reasons: Reasons


@dataclass(frozen=True, slots=True)
class _Place:
    """A candidate of all queries together."""

    candidate: Candidate
    ranks: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class _Judged:
    """A candidate with what it has of the query's terms; None where nobody asked."""

    place: _Place
    terms: frozenset[int]
    coverage: float
    rerank_score: float | None = None


class Results:
    """The hits of one search."""

    def __init__(
        self,
        *,
        store: Store,
        analyzer: Analyzer,
        covers: Callable[[str], bool],
        scale: Scale,
        key: CollectionKey,
        collection: Collection,
        search: Search,
        plans: Sequence[Plan],
        reranking: Reranking | None = None,
        deadline: Budget | None = None,
    ) -> None:
        """Args:
        store: asked once for each query, or more often where candidates did not fit.
        analyzer: of the collection.
        covers: whether the encoder's vectors mean something in a language.
        scale: how its cosines are to be read.
        key: the collection's.
        collection: its facts.
        search: what is asked.
        plans: one a query, at least one.
        reranking: where it is asked for.
        deadline: what is left of the call's time.
        """
        self._store = store
        self._analyzer = analyzer
        self._covers = covers
        self._scale = scale
        self._key = key
        self._collection = collection
        self._search = search
        self._plans = plans
        self._reranking = reranking
        self._deadline = deadline
        self._top_k = search.top_k or DEFAULT_TOP_K
        self._picky = search.by_document or search.relevant_only or search.diversity > 0
        self._reads_terms = (
            search.relevant_only or search.highlights or search.explain or search.diversity > 0
        )

    async def find(self) -> Found:
        wanted = await self._query_terms() if self._reads_terms else ()
        size = max(4 * self._top_k * (self._search.group_size or 1), MIN_POOL)
        if not self._picky:
            size = self._top_k if len(self._plans) == 1 else max(self._top_k, MIN_POOL)
        if self._reranking is not None:
            size = max(size, self._rerank_depth(self._reranking))
        size = max(min(size, MAX_POOL), self._top_k)
        outcome: RerankOutcome | None = None
        while True:
            places = await self._places(size)
            above = self._above(places)
            choose = self._choose if self._reranking is None else self._kept
            chosen = await self._run(choose, above, wanted)
            if len(above) < size or size >= MAX_POOL or self._enough(chosen):
                break
            size = min(4 * size, MAX_POOL)  # the first candidates were of few documents
        if self._reranking is not None:
            chosen, outcome = await self._reranked(self._reranking, chosen)
            chosen = await self._run(self._cut, chosen)
        hits = await self._run(self._hits, chosen, wanted)
        if self._search.neighbors:
            hits = await self._with_neighbors(hits)
        reasons = [plan.reasons for plan in self._plans] if self._search.explain else ()
        return Found(hits, self._plans[0].reasons.weights, reasons, len(places), outcome)

    async def _run(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run in a thread what reads texts or terms; the rest takes less time than a thread."""
        if self._picky or self._reads_terms:
            return await asyncio.to_thread(function, *arguments, **named)
        return function(*arguments, **named)

    # Candidates

    async def _places(self, size: int) -> list[_Place]:
        """The best candidates of all queries; several rankings are joined by rank."""
        asked = [
            self._store.search(
                self._key,
                replace(
                    plan.query,
                    top_k=size,
                    depth=max(size, MIN_DEPTH),
                    vectors=self._search.diversity > 0,
                    terms=self._reads_terms,
                ),
            )
            for plan in self._plans
        ]
        if len(asked) > 1:
            return _joined(await asyncio.gather(*asked))
        return [_Place(one, (rank,)) for rank, one in enumerate(await asked[0], 1)]

    def _above(self, places: Sequence[_Place]) -> Sequence[_Place]:
        """Those that reach the lowest score."""
        lowest = self._search.min_score
        return [one for one in places if lowest is None or one.candidate.score >= lowest]

    async def _query_terms(self) -> Sequence[QueryTerms]:
        """The queries' terms with their weights."""
        made = []
        for plan in self._plans:
            text, language = plan.reasons.query, plan.reasons.language
            vector = await asyncio.to_thread(self._analyzer.query, text, language)
            weights = await self._store.term_weights(self._key, vector.indices)
            # A term that the collection does not have would say most of all.
            most = math.log(2 * self._collection.chunks + 2)
            terms = zip(vector.indices, vector.values, weights, strict=True)
            given = {term: value * (weight or most) for term, value, weight in terms}
            made.append(await asyncio.to_thread(query_terms, text, given, self._ids))
        return made

    def _ids(self, text: str) -> Sequence[int]:
        return self._analyzer.query(text, self._plans[0].reasons.language).indices

    # Choice

    def _choose(self, places: Sequence[_Place], wanted: Sequence[QueryTerms]) -> list[_Judged]:
        """Those of the candidates that are answered, in order."""
        return self._cut(self._kept(places, wanted))

    def _kept(self, places: Sequence[_Place], wanted: Sequence[QueryTerms]) -> list[_Judged]:
        """Those of the candidates that may be answered."""
        if self._picky:
            judged = [self._judge(one, wanted) for one in places]
        else:
            judged = [_Judged(one, frozenset(), 0.0) for one in places]
        if self._search.relevant_only:
            judged = self._relevant(judged, wanted)
        return judged

    def _cut(self, judged: list[_Judged]) -> list[_Judged]:
        """So many of them as are asked for, as unlike each other as is asked for."""
        if self._search.diversity > 0 and len(judged) > 1:
            most = _last_read(judged) or MAX_DIVERSE
            first, rest = judged[:most], judged[most:]
            scores = _relevance(first)
            order = diversify(scores, self._similarity(first), self._search.diversity)
            judged = [*(first[position] for position in order), *rest]
        if self._search.by_document:
            return _grouped(judged, self._top_k, self._search.group_size or 1)
        return judged[: self._top_k]

    # Reranking

    def _rerank_depth(self, reranking: Reranking) -> int:
        return reranking.depth(self._search.rerank_depth, self._top_k)

    async def _reranked(
        self, reranking: Reranking, judged: Sequence[_Judged]
    ) -> tuple[list[_Judged], RerankOutcome]:
        """The best of them in the reranker's order; of several queries, each candidate is read
        with the one that ranks it best."""
        depth = self._rerank_depth(reranking)
        first, rest = judged[:depth], judged[depth:]
        readings = [
            Reading(
                _best_query(one.place.ranks),
                reranked_text(one.place.candidate.chunk),
                one.place.candidate.chunk.language,
            )
            for one in first
        ]
        queries = [(plan.reasons.query, plan.reasons.language) for plan in self._plans]
        order = await reranking.order(queries, readings, self._deadline)
        scored = [replace(first[at], rerank_score=order.scores[at]) for at in order.places]
        return [*scored, *rest], order.outcome

    def _enough(self, chosen: Sequence[_Judged]) -> bool:
        """Whether more candidates would not help: a relevant one seldom comes after hundreds."""
        if not self._search.by_document or self._search.relevant_only:
            return True
        return len({one.place.candidate.chunk.document_id for one in chosen}) >= self._top_k

    def _judge(self, place: _Place, wanted: Sequence[QueryTerms]) -> _Judged:
        if not wanted:
            return _Judged(place, frozenset(), 0.0)
        terms = frozenset(place.candidate.terms or ())
        return _Judged(place, terms, max(one.coverage(terms) for one in wanted))

    def _relevant(self, judged: Sequence[_Judged], wanted: Sequence[QueryTerms]) -> list[_Judged]:
        """Those that have enough to do with the query, themselves or with their document."""
        documents: dict[str, set[int]] = defaultdict(set)
        for one in judged:
            documents[one.place.candidate.chunk.document_id] |= one.terms
        understood = any(plan.reasons.weights.dense > 0 for plan in self._plans)
        return [
            one
            for one in judged
            if is_relevant(
                one.place.candidate,
                coverage=one.coverage,
                document_coverage=max(
                    terms.coverage(documents[one.place.candidate.chunk.document_id])
                    for terms in wanted
                ),
                scale=self._scale
                if understood and self._covers(one.place.candidate.chunk.language)
                else None,
            )
        ]

    def _similarity(self, judged: Sequence[_Judged]) -> Matrix:
        """By meaning where the encoder represents every language at hand, else by words."""
        vectors = [one.place.candidate.vector for one in judged]
        languages = {one.place.candidate.chunk.language for one in judged}
        if all(map(self._covers, languages)) and all(vectors):
            return vector_similarity([vector for vector in vectors if vector])
        return term_similarity([one.terms for one in judged])

    # Hits

    def _hits(self, chosen: Sequence[_Judged], wanted: Sequence[QueryTerms]) -> list[Hit]:
        return [self._hit(one, wanted) for one in chosen]

    def _hit(self, one: _Judged, wanted: Sequence[QueryTerms]) -> Hit:
        hit = Hit(one.place.candidate, rerank_score=one.rerank_score)
        if self._search.highlights:
            marked = highlight(one.place.candidate.chunk.text, _union(wanted), self._ids)
            hit = replace(hit, highlights=marked)
        if self._search.explain:
            if not one.terms:
                one = self._judge(one.place, wanted)
            spelled = {
                terms.spellings[term]: None
                for terms in wanted
                for term in terms.spellings
                if term in one.terms
            }
            hit = replace(hit, reasons=HitReasons(tuple(spelled), one.coverage, one.place.ranks))
        return hit

    async def _with_neighbors(self, hits: Sequence[Hit]) -> list[Hit]:
        """Hits with the chunks around them, read with the caller's own attributes."""
        limit = asyncio.Semaphore(_SIMULTANEOUS)

        async def read(hit: Hit) -> Hit:
            async with limit:
                return await self._neighbored(hit)

        return list(await asyncio.gather(*map(read, hits)))

    async def _neighbored(self, hit: Hit) -> Hit:
        chunk = hit.candidate.chunk
        content, index = _position(chunk)
        start = max(index - self._search.neighbors, 0)
        count = index + self._search.neighbors + 1 - start
        try:
            around = await self._store.list_chunks(
                self._key, chunk.document_id, start, count, self._search.attributes
            )
        except NotFound:
            return hit  # the document was deleted meanwhile
        # The document may have been replaced meanwhile: other content is no neighbour.
        places = [(_position(one), one) for one in around]
        return replace(
            hit,
            before=[one for (same, at), one in places if same == content and at < index],
            after=[one for (same, at), one in places if same == content and at > index],
        )


def _joined(rankings: Sequence[Sequence[Candidate]]) -> list[_Place]:
    """Rankings of several queries by reciprocal rank fusion; first in all of them scores 1.

    A candidate's ranks and scores in the arms are those of the query that ranks it best.
    """
    best: dict[str, Candidate] = {}
    ranks: dict[str, list[int | None]] = {}
    for number, ranking in enumerate(rankings):
        for rank, candidate in enumerate(ranking, 1):
            chunk_id = candidate.chunk.chunk_id
            known = ranks.setdefault(chunk_id, [None] * len(rankings))
            if all(one is None or rank < one for one in known):
                best[chunk_id] = candidate
            known[number] = rank
    most = len(rankings) / (_RANK_CONSTANT + 1)
    places = [
        _Place(
            replace(
                candidate,
                score=sum(1 / (_RANK_CONSTANT + rank) for rank in ranks[chunk_id] if rank) / most,
            ),
            tuple(ranks[chunk_id]),
        )
        for chunk_id, candidate in best.items()
    ]
    places.sort(key=lambda one: (-one.candidate.score, one.candidate.chunk.chunk_id))
    return places


def _best_query(ranks: Sequence[int | None]) -> int:
    """Which query ranks a candidate best."""
    return min((rank, query) for query, rank in enumerate(ranks) if rank is not None)[1]


def _last_read(judged: Sequence[_Judged]) -> int:
    """How many there are up to the last one that the reranker read; 0 when it read none."""
    read = (place for place, one in enumerate(judged, 1) if one.rerank_score is not None)
    return max(read, default=0)


def _relevance(judged: Sequence[_Judged]) -> list[float]:
    """How relevant they are beside each other: by the reranker's scores where it read all of them,
    by the arms' where it read none."""
    scores = [one.rerank_score for one in judged]
    if all(score is None for score in scores):
        return [one.place.candidate.score for one in judged]
    # Places where it read some: its scores and those of the arms have nothing in common.
    return [
        1.0 - place / len(scores) if None in scores else score or 0.0
        for place, score in enumerate(scores)
    ]


def _grouped(judged: Sequence[_Judged], documents: int, size: int) -> list[_Judged]:
    """The best `size` of each of the first `documents` documents, document by document."""
    groups: dict[str, list[_Judged]] = {}
    for one in judged:
        document_id = one.place.candidate.chunk.document_id
        if document_id in groups or len(groups) < documents:
            group = groups.setdefault(document_id, [])
            if len(group) < size:
                group.append(one)
    return [one for group in groups.values() for one in group]


def _union(wanted: Sequence[QueryTerms]) -> QueryTerms:
    """The terms of all queries."""
    if len(wanted) == 1:
        return wanted[0]
    return QueryTerms(
        {term: weight for one in wanted for term, weight in one.weights.items()},
        {term: spelling for one in wanted for term, spelling in one.spellings.items()},
        {piece: ids for one in wanted for piece, ids in one.pieces.items()},
    )


def _position(chunk: StoredChunk) -> tuple[str, int]:
    """A chunk's content and its index in it, as its id says them."""
    content, _, index = chunk.chunk_id.rpartition("-")
    return content, int(index)
