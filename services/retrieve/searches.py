"""What a search may ask, and what it finds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from services.retrieve.ports import ArmWeights, Attributes, Candidate, Filter, StoredChunk
from services.runtime.errors import InvalidArgument
from services.text.normalize import normalize

DEFAULT_TOP_K = 10
MAX_TOP_K = 1000
MAX_QUERY_CHARACTERS = 8192
MAX_QUERIES = 8
MAX_GROUP_SIZE = 100
MAX_NEIGHBORS = 10
MAX_RERANK_DEPTH = 200
"""Candidates that a reranker reads, at most."""


@dataclass(frozen=True, slots=True)
class Search:
    """A search; `mode` is hybrid, dense or sparse; zero and None mean the defaults."""

    collection: str
    query: str = ""
    language: str = ""
    mode: str = "hybrid"
    top_k: int = 0
    filter: Filter | None = None
    rerank: bool = False
    attributes: Attributes = ()
    """The caller's, for access lists."""
    queries: Sequence[str] = ()
    """Instead of `query`: several, whose hits are fused."""
    diversity: float = 0.0
    """From 0, relevance alone, to 1, novelty alone."""
    by_document: bool = False
    """Whether `top_k` counts documents, each with its best `group_size` hits."""
    group_size: int = 0
    min_score: float | None = None
    relevant_only: bool = False
    """Whether hits go that have too little to do with the query."""
    highlights: bool = False
    neighbors: int = 0
    """Chunks before and after a hit."""
    explain: bool = False
    weights: ArmWeights | None = None
    """Of a hybrid search, instead of those that the collection was calibrated to."""
    rerank_depth: int = 0
    """Candidates that the reranker reads."""


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of code points of a chunk's original text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Highlights:
    """Where a hit says what the query asks."""

    terms: tuple[Span, ...] = ()
    """Words that the query has too, in order, not overlapping."""
    sentences: tuple[Span, ...] = ()
    """The sentences with most of them, in order."""


@dataclass(frozen=True, slots=True)
class HitReasons:
    """Why a chunk was found."""

    matched_terms: tuple[str, ...]
    """Terms of the query that it has, as the query spells them."""
    coverage: float
    """Share of the weight (IDF) of the query's terms that it has, from 0 to 1."""
    query_ranks: tuple[int | None, ...]
    """Its rank for each query, from 1; None where it was not found."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A candidate with what was asked for beside it."""

    candidate: Candidate
    highlights: Highlights | None = None
    before: Sequence[StoredChunk] = ()
    after: Sequence[StoredChunk] = ()
    reasons: HitReasons | None = None
    rerank_score: float | None = None
    """The reranker's; None where it did not read it."""


class RerankStatus(Enum):
    """Whether hits follow the reranker, and if not, why."""

    APPLIED = "applied"
    TIMED_OUT = "timed_out"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class RerankOutcome:
    """What a reranker did for a search."""

    status: RerankStatus
    model: str
    reason: str
    """A constant; empty when it was applied."""
    candidates: int
    """How many it read."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Reasons:
    """How one query was searched."""

    query: str
    """As it was searched: normalised."""
    language: str
    weights: ArmWeights
    dense_left_out: str = ""
    """Why the dense arm was not asked; empty when it was."""
    sparse_left_out: str = ""
    """Why the sparse arm was not asked; empty when it was."""


@dataclass(frozen=True, slots=True)
class Found:
    """The hits of a search, best first, and how the arms were weighed for its first query."""

    hits: Sequence[Hit]
    weights: ArmWeights
    reasons: Sequence[Reasons] = ()
    """One a query, where an explanation was asked for."""
    candidates: int = 0
    """Chunks that the arms found together, before anything was left out."""
    rerank: RerankOutcome | None = None
    """None where it was not asked for."""


def check_search(search: Search) -> list[str]:
    """Check everything but the filter; returns the normalised queries, at least one.

    Raises:
        InvalidArgument: naming the field.
    """
    if not 0 <= search.top_k <= MAX_TOP_K:
        raise InvalidArgument(
            "TOP_K_OUT_OF_RANGE", f"top_k lies from 1 to {MAX_TOP_K}.", field="top_k"
        )
    if not 0.0 <= search.diversity <= 1.0:
        raise InvalidArgument(
            "DIVERSITY_OUT_OF_RANGE", "diversity lies from 0 to 1.", field="diversity"
        )
    if not 0 <= search.group_size <= MAX_GROUP_SIZE:
        raise InvalidArgument(
            "GROUP_SIZE_OUT_OF_RANGE",
            f"group_size lies from 1 to {MAX_GROUP_SIZE}.",
            field="group_size",
        )
    if search.group_size and not search.by_document:
        raise InvalidArgument(
            "GROUP_SIZE_OUT_OF_RANGE", "group_size needs group_by.", field="group_size"
        )
    if search.min_score is not None and not math.isfinite(search.min_score):
        raise InvalidArgument("MIN_SCORE_INVALID", "min_score is a number.", field="min_score")
    if not 0 <= search.neighbors <= MAX_NEIGHBORS:
        raise InvalidArgument(
            "NEIGHBORS_OUT_OF_RANGE",
            f"neighbors lies from 0 to {MAX_NEIGHBORS}.",
            field="neighbors",
        )
    if not 0 <= search.rerank_depth <= MAX_RERANK_DEPTH:
        raise InvalidArgument(
            "RERANK_DEPTH_OUT_OF_RANGE",
            f"rerank_depth lies from 1 to {MAX_RERANK_DEPTH}.",
            field="rerank_depth",
        )
    if search.rerank_depth and not search.rerank:
        raise InvalidArgument(
            "RERANK_DEPTH_OUT_OF_RANGE", "rerank_depth needs rerank.", field="rerank_depth"
        )
    if search.weights is not None:
        parts = (search.weights.dense, search.weights.sparse)
        if not all(0.0 <= part <= 1.0 for part in parts) or not any(parts):
            raise InvalidArgument(
                "WEIGHTS_INVALID",
                "Weights lie from 0 to 1, and one of them is above 0.",
                field="weights",
            )
        if search.mode != "hybrid":
            raise InvalidArgument(
                "WEIGHTS_INVALID", "Weights are for a hybrid search.", field="weights"
            )
    if not search.queries:
        return [query_text(search.query, "query")]
    if search.query:
        raise InvalidArgument(
            "QUERIES_INVALID", "A search has either query or queries.", field="queries"
        )
    if len(search.queries) > MAX_QUERIES:
        raise InvalidArgument(
            "QUERIES_INVALID", f"At most {MAX_QUERIES} queries are fused.", field="queries"
        )
    return [query_text(one, f"queries[{place}]") for place, one in enumerate(search.queries)]


def query_text(query: str, field: str) -> str:
    """A query's normalised text.

    Raises:
        InvalidArgument: QUERY_TOO_LONG, QUERY_EMPTY.
    """
    if len(query) > MAX_QUERY_CHARACTERS:
        raise InvalidArgument(
            "QUERY_TOO_LONG",
            f"A query has at most {MAX_QUERY_CHARACTERS} characters.",
            field=field,
        )
    text = normalize(query)
    if not text:
        raise InvalidArgument("QUERY_EMPTY", "The query is empty.", field=field)
    return text
