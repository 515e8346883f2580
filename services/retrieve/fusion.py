"""How the arms of a search are weighed and joined (ADR 0005)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.retrieve.ports import ArmWeights, EncoderFacts

RANK_CONSTANT = 60
"""The k of reciprocal rank fusion: how slowly a rank's worth falls."""
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
) -> ArmWeights:
    """Weigh the arms for one query.

    The dense arm gets nothing when the encoder does not represent the query's language, when it
    did not know the query's words, or when the collection holds nothing that it represents: its
    ranking is noise then, and noise costs half the quality (an English encoder on Japanese).
    """
    understood = encoder.covers(query_language) and unknown <= MAX_UNKNOWN
    if not understood or not covered_languages(encoder, collection_languages):
        return SPARSE_ONLY
    return BOTH if has_terms else DENSE_ONLY


def covered_languages(
    encoder: EncoderFacts, collection_languages: Mapping[str, int]
) -> tuple[str, ...]:
    """The collection's languages that the encoder represents."""
    return tuple(
        sorted(
            language
            for language, chunks in collection_languages.items()
            if chunks > 0 and encoder.covers(language)
        )
    )


def fuse(
    dense: Sequence[tuple[int, float]], sparse: Sequence[tuple[int, float]], weights: ArmWeights
) -> list[Fused]:
    """Join two rankings of (id, score), best first.

    With one arm its own scores stay. With two, each id gets the weighted sum of 1/(k + rank),
    scaled so that first in both arms is 1. Ties go to the better sparse score, then to the lower
    id, so that equal input gives equal output.
    """
    dense_places, sparse_places = _places(dense), _places(sparse)
    best = (weights.dense + weights.sparse) / (RANK_CONSTANT + 1)
    single = weights.dense == 0 or weights.sparse == 0
    fused = []
    for id_ in dense_places.keys() | sparse_places.keys():
        dense_rank, dense_score = dense_places.get(id_, (None, None))
        sparse_rank, sparse_score = sparse_places.get(id_, (None, None))
        if single:
            score = dense_score if weights.dense else sparse_score
        else:
            score = (_worth(weights.dense, dense_rank) + _worth(weights.sparse, sparse_rank)) / best
        if score is not None:
            fused.append(Fused(id_, score, dense_rank, sparse_rank, dense_score, sparse_score))
    fused.sort(key=lambda hit: (-hit.score, -(hit.sparse_score or 0.0), hit.id))
    return fused


def _places(ranking: Sequence[tuple[int, float]]) -> dict[int, tuple[int, float]]:
    """Rank and score by id. Engines leave the order of equal scores open; here it is by id."""
    ordered = sorted(ranking, key=lambda hit: (-hit[1], hit[0]))
    return {id_: (rank, score) for rank, (id_, score) in enumerate(ordered, 1)}


def _worth(weight: float, rank: int | None) -> float:
    return weight / (RANK_CONSTANT + rank) if rank else 0.0
