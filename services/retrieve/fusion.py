"""How the arms of a search are weighed and joined (ADR 0005, ADR 0014).

Scores are joined, not ranks: a convex combination of scores that are normalised over the
candidates, as Bruch, Gai & Ingber found better than reciprocal rank fusion in and out of the domain
("An Analysis of Fusion Functions for Hybrid Retrieval", ACM TOIS 2023). Ranks (Cormack, Clarke &
Büttcher, "Reciprocal Rank Fusion outperforms Condorcet", SIGIR 2009) throw away how much better a
candidate is than the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import gt, neg
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.retrieve.ports import ArmWeights, EncoderFacts

DEPTH = 200
"""Candidates of an arm, at least; the last of so many is what an irrelevant one scores."""
MAX_UNKNOWN = 0.3
"""Share of unknown tokens above which an encoder has not understood a query."""

SPARSE_ONLY = ArmWeights(dense=0.0, sparse=1.0)
DENSE_ONLY = ArmWeights(dense=1.0, sparse=0.0)
BOTH = ArmWeights(dense=0.5, sparse=0.5)


@dataclass(frozen=True, slots=True)
class Fused:
    """A candidate's place after fusion; ranks count from 1."""

    id: int
    score: float
    dense_rank: int | None
    sparse_rank: int | None
    dense_score: float | None
    sparse_score: float | None


def arm_weights(
    encoder: EncoderFacts,
    query_language: str,
    unknown: float,
    collection_languages: Mapping[str, int],
    *,
    has_terms: bool,
    measured: Mapping[str, ArmWeights],
) -> ArmWeights:
    """Weigh the arms for one query.

    The dense arm gets nothing when the encoder does not represent the query's language, when it
    did not know the query's words, or when the collection holds nothing that it represents: its
    ranking is noise then, and noise costs half the quality (an English encoder on Japanese).
    Otherwise what was measured in the collection decides, for the query's language or, for a
    language that was not measured, all of them together.

    Args:
        encoder: the collection's.
        query_language: ISO 639-1 or ``und``.
        unknown: share of the query's tokens that the encoder does not know.
        collection_languages: chunks by language.
        has_terms: whether the sparse arm has something to look for.
        measured: weights by language, as calibrated.
    """
    understood = encoder.covers(query_language) and unknown <= MAX_UNKNOWN
    if not understood or not covered_languages(encoder, collection_languages, measured):
        return SPARSE_ONLY
    if not has_terms:
        return DENSE_ONLY
    if query_language in measured:
        return measured[query_language]
    # The worst of the others would let one language silence all; the best trusts the encoder as
    # far as it has earned it somewhere.
    return max(measured.values(), key=lambda one: one.dense, default=BOTH)


def covered_languages(
    encoder: EncoderFacts,
    collection_languages: Mapping[str, int],
    measured: Mapping[str, ArmWeights],
) -> tuple[str, ...]:
    """The collection's languages that the encoder represents and does not fail in."""
    return tuple(
        sorted(
            language
            for language, chunks in collection_languages.items()
            if chunks > 0 and encoder.covers(language) and measured.get(language, BOTH).dense > 0
        )
    )


def fuse(
    dense: Sequence[tuple[int, float]],
    sparse: Sequence[tuple[int, float]],
    weights: ArmWeights,
    limit: int | None = None,
) -> list[Fused]:
    """Join two rankings of (id, score); the best `limit`, best first.

    With one arm its own scores stay. With two, each id gets the weighted mean of its normalised
    scores, so first in both arms is 1; one that an arm did not find has that arm's lowest. Ties go
    to the better sparse score, then to the lower id, so that equal input gives equal output.

    The arms are read from the top only as far as the best need: by the threshold algorithm (Fagin,
    Lotem & Naor, "Optimal Aggregation Algorithms for Middleware", PODS 2001).
    """
    arms = (_Arm(dense), _Arm(sparse))
    shares = (weights.dense, weights.sparse)
    asked = [arm for arm, weight in zip(arms, shares, strict=True) if weight]
    if len(asked) > 1:
        for arm, weight in zip(arms, shares, strict=True):
            arm.normalise(weight / (weights.dense + weights.sparse))
    columns = [(arm.places, arm.levels, arm.floor) for arm in asked]
    words = arms[1]
    longest = max((len(arm.ids) for arm in asked), default=0)
    read = longest if limit is None else min(longest, 2 * limit)
    while True:
        found = []
        for id_ in {id_ for arm in asked for id_ in arm.ids[:read]}:
            score = 0.0
            for places, levels, floor in columns:
                place = places.get(id_)
                score += floor if place is None else levels[place]
            place = words.places.get(id_)
            found.append((-score, 0.0 if place is None else -words.scores[place], id_))
        found.sort()
        # No id further down can have more than one that came next in every arm.
        most = sum(arm.levels[read] if read < len(arm.ids) else arm.floor for arm in asked)
        if limit is None or read >= longest or -found[limit - 1][0] > most:
            break
        read *= 4
    return [_fused(id_, -score, arms) for score, _, id_ in found[:limit]]


class _Arm:
    """One arm's ranking, best first. Engines leave the order of equal scores open; it is by id."""

    __slots__ = ("floor", "ids", "levels", "places", "scores")

    def __init__(self, ranking: Sequence[tuple[int, float]]) -> None:
        self.ids: Sequence[int] = ()
        self.scores: Sequence[float] = ()
        if ranking:
            self.ids, self.scores = zip(*ranking, strict=True)
            if not all(map(gt, self.scores, self.scores[1:])):
                ordered = sorted(zip(map(neg, self.scores), self.ids, strict=True))
                self.ids = [id_ for _, id_ in ordered]
                self.scores = [-score for score, _ in ordered]
        self.places = dict(zip(self.ids, range(len(self.ids)), strict=True))
        """Where an id is, from 0."""
        self._count(self.scores)

    def normalise(self, share: float) -> None:
        """Let `normalised` scores count, and only a share of them."""
        if self.scores:
            nth = self.scores[DEPTH - 1] if len(self.scores) >= DEPTH else None
            least = _least(nth, self.scores[-1])
            span = _span(self.scores[0], least)
            self._count([(score - least) / span * share for score in self.scores])

    def _count(self, levels: Sequence[float]) -> None:
        self.levels = levels
        """What the scores count, place by place."""
        self.floor = min(0.0, levels[-1]) if levels else 0.0
        """What an id counts that the arm did not find."""


def _fused(id_: int, score: float, arms: tuple[_Arm, _Arm]) -> Fused:
    dense, sparse = arms
    by_dense, by_sparse = dense.places.get(id_), sparse.places.get(id_)
    return Fused(
        id_,
        score,
        None if by_dense is None else by_dense + 1,
        None if by_sparse is None else by_sparse + 1,
        None if by_dense is None else dense.scores[by_dense],
        None if by_sparse is None else sparse.scores[by_sparse],
    )


def normalised(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Scores on a scale where 1 is the best and 0 what irrelevant candidates get.

    That is what the `DEPTH`-th candidate has, which suits every encoder's range of cosines; where
    there are fewer, it is the score of things that have nothing in common, 0. What lies behind the
    `DEPTH`-th candidate is below 0.
    """
    if not len(scores):
        return np.zeros(0)
    given = np.asarray(scores, dtype=np.float64)
    nth = float(np.partition(given, -DEPTH)[-DEPTH]) if len(given) >= DEPTH else None
    least = _least(nth, float(given.min()))
    return (given - least) / _span(float(given.max()), least)


def _least(nth: float | None, last: float) -> float:
    """The score that counts 0, from the `DEPTH`-th, where there is one, and the last."""
    return min(0.0, last) if nth is None else nth


def _span(best: float, least: float) -> float:
    return max(best - least, 1e-9)
