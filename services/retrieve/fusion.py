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


_NO_IDS = np.zeros(0, np.int64)
_Arm = tuple[NDArray[np.int64], NDArray[np.float64]]


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
    """
    arms = (_ordered(dense), _ordered(sparse))
    asked = [
        (arm, weight)
        for arm, weight in zip(arms, (weights.dense, weights.sparse), strict=True)
        if weight
    ]
    ids = np.unique(np.concatenate([arm[0] for arm, _ in asked])) if asked else _NO_IDS
    fused = np.zeros(len(ids))
    for arm, weight in asked:
        levels = arm[1]
        if len(asked) > 1:
            levels = normalised(levels) * (weight / (weights.dense + weights.sparse))
        column = np.full(len(ids), min(0.0, float(levels.min())) if len(levels) else 0.0)
        column[np.searchsorted(ids, arm[0])] = levels
        fused += column
    ranks, scores = zip(*(_places(ids, arm) for arm in arms), strict=True)
    best = np.lexsort((ids, -scores[1], -fused))[:limit]
    columns = [column[best].tolist() for column in (ids, fused, *ranks, *scores)]
    return [
        Fused(
            id_, score, dense_rank or None, sparse_rank or None,
            dense_score if dense_rank else None, sparse_score if sparse_rank else None,
        )
        for id_, score, dense_rank, sparse_rank, dense_score, sparse_score in zip(
            *columns, strict=True
        )
    ]  # fmt: skip


def _ordered(ranking: Sequence[tuple[int, float]]) -> _Arm:
    """Ids and scores. Engines leave the order of equal scores open; here it is by id."""
    if not ranking:
        return _NO_IDS, np.zeros(0)
    columns = tuple(zip(*ranking, strict=True))
    ids, scores = np.array(columns[0], np.int64), np.array(columns[1], np.float64)
    order = np.lexsort((ids, -scores))
    return ids[order], scores[order]


def _places(ids: NDArray[np.int64], arm: _Arm) -> _Arm:
    """Ranks, from 1, and scores of ids in an arm; 0 and 0 for one that it did not find."""
    ranks, scores = np.zeros(len(ids), np.int64), np.zeros(len(ids))
    if len(ids):
        at = np.searchsorted(ids, arm[0])
        at[at == len(ids)] = 0
        there = ids[at] == arm[0]
        ranks[at[there]] = np.flatnonzero(there) + 1
        scores[at[there]] = arm[1][there]
    return ranks, scores


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
