"""The answer of a search, for the reference; what is sent is made in `views.py`, and a test
compares the two."""

from typing import Literal

from pydantic import BaseModel, Field

from gateway.schemas import ChunkView, Metadata, RerankingView, WeightsView


class RanksView(BaseModel):
    """Ranks among each arm's candidates, from 1; null when not among them."""

    dense: int | None
    sparse: int | None


class ScoresView(BaseModel):
    """Scores in each arm, and the reranker's; null when not among what it saw."""

    dense: float | None = Field(description="Cosine similarity.")
    sparse: float | None = Field(description="BM25.")
    rerank: float | None = Field(None, description="With `rerank`, where it was read.")


class SpanView(BaseModel):
    """A part of a text, in code points, as `text[start:end]` in Python."""

    start: int
    end: int


class HighlightsView(BaseModel):
    """Where a hit's `text` says what the query asks."""

    terms: list[SpanView] = Field(description="Words that the query has too.")
    sentences: list[SpanView] = Field(description="Those that say most of the query, at most two.")


class NeighborsView(BaseModel):
    """Chunks around a hit in its document, in reading order."""

    before: list[ChunkView]
    after: list[ChunkView]


class HitExplanationView(BaseModel):
    """Why a hit was found."""

    matched_terms: list[str] = Field(description="As the query spells them.")
    coverage: float = Field(description="Share of the weight of the query's terms, 0 to 1.")
    query_ranks: list[int | None] = Field(description="Its rank for each query, from 1.")


class HitView(BaseModel):
    """A passage that was found."""

    document_id: str
    chunk_id: str
    text: str
    source: str
    title: str
    page: int | None
    heading: str
    metadata: Metadata
    language: str
    score: float
    ranks: RanksView
    scores: ScoresView
    highlights: HighlightsView | None = Field(description="With `highlights`.")
    neighbors: NeighborsView | None = Field(description="With `neighbors`.")
    explanation: HitExplanationView | None = Field(description="With `explain`.")


class QueryExplanationView(BaseModel):
    """How a query was searched."""

    query: str = Field(description="As it was searched.")
    language: str = Field(description="ISO 639-1, or `und`.")
    weights: WeightsView
    left_out: dict[Literal["dense", "sparse"], str] = Field(
        description="Arms that were not asked, with the reason."
    )


class SearchExplanationView(BaseModel):
    """How the hits came about."""

    queries: list[QueryExplanationView]
    candidates: int = Field(description="Chunks found before any was left out.")


class HitsView(BaseModel):
    """Hits, best first."""

    hits: list[HitView]
    explanation: SearchExplanationView | None = Field(None, description="With `explain`.")
    rerank: RerankingView | None = Field(None, description="With `rerank`.")
