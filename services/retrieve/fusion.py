"""How the arms of a search are weighed and joined (ADR 0005, ADR 0014).

Scores are joined, not ranks: a convex combination of scores that are normalised over the
candidates, as Bruch, Gai & Ingber found better than reciprocal rank fusion in and out of the domain
("An Analysis of Fusion Functions for Hybrid Retrieval", ACM TOIS 2023). Ranks (Cormack, Clarke &
Büttcher, "Reciprocal Rank Fusion outperforms Condorcet", SIGIR 2009) throw away how much better a
candidate is than the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    dense: Sequence[tuple[int, float]], sparse: Sequence[tuple[int, float]], weights: ArmWeights
) -> list[Fused]:
    """Join two rankings of (id, score), best first.

    With one arm its own scores stay. With two, each id gets the weighted mean of its normalised
    scores, so first in both arms is 1; one that an arm did not find has that arm's lowest. Ties go
    to the better sparse score, then to the lower id, so that equal input gives equal output.
    """
    arms = [(_places(dense), weights.dense), (_places(sparse), weights.sparse)]
    asked = [(places, weight) for places, weight in arms if weight]
    total = weights.dense + weights.sparse
    scores: dict[int, float] = dict.fromkeys((id_ for places, _ in asked for id_ in places), 0.0)
    for places, weight in asked:
        own = np.array([score for _, score in places.values()])
        levels = own if len(asked) == 1 else normalised(own) * (weight / total)
        known = dict(zip(places, levels.tolist(), strict=True))
        lowest = min(0.0, *known.values()) if known else 0.0
        for id_ in scores:
            scores[id_] += known.get(id_, lowest)
    fused = []
    for id_, score in scores.items():
        dense_rank, dense_score = arms[0][0].get(id_, (None, None))
        sparse_rank, sparse_score = arms[1][0].get(id_, (None, None))
        fused.append(Fused(id_, score, dense_rank, sparse_rank, dense_score, sparse_score))
    fused.sort(key=lambda hit: (-hit.score, -(hit.sparse_score or 0.0), hit.id))
    return fused


def normalised(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Scores on a scale where 1 is the best and 0 what irrelevant candidates get.

    That is what the `DEPTH`-th candidate has, which suits every encoder's range of cosines; where
    there are fewer, it is the score of things that have nothing in common, 0. What lies behind the
    `DEPTH`-th candidate is below 0.
    """
    if not len(scores):
        return np.zeros(0)
    given = np.asarray(scores, dtype=np.float64)
    best = float(given.max())
    if len(given) >= DEPTH:
        least = float(np.partition(given, -DEPTH)[-DEPTH])
    else:
        least = min(0.0, float(given.min()))
    return (given - least) / max(best - least, 1e-9)


def _places(ranking: Sequence[tuple[int, float]]) -> dict[int, tuple[int, float]]:
    """Rank and score by id. Engines leave the order of equal scores open; here it is by id."""
    ordered = sorted(ranking, key=lambda hit: (-hit[1], hit[0]))
    return {id_: (rank, score) for rank, (id_, score) in enumerate(ordered, 1)}
