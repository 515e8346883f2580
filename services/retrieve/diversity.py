"""Maximal marginal relevance: Carbonell & Goldstein, "The Use of MMR, Diversity-Based Reranking
for Reordering Documents and Producing Summaries" (SIGIR 1998)."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from services.retrieve.ports import Matrix


def diversify(relevance: Sequence[float], similarity: Matrix, diversity: float) -> list[int]:
    """An order of candidates in which each next one is relevant and unlike those before it.

    Args:
        relevance: of the candidates; scaled here to lie from 0 to 1.
        similarity: shape (candidates, candidates), from 0 to 1.
        diversity: 1 - lambda: 0 orders by relevance, 1 by novelty alone.

    Returns:
        Positions of all candidates. The first is the most relevant one, whatever the diversity.
    """
    if not relevance:
        return []
    scores = np.asarray(relevance, dtype=np.float64)
    low, high = float(scores.min()), float(scores.max())
    scaled = (scores - low) / (high - low) if high > low else np.ones_like(scores)
    order = [int(np.argmax(scaled))]
    left = np.ones(len(scaled), dtype=bool)
    left[order[0]] = False
    nearest = similarity[order[0]].astype(np.float64)
    while left.any():
        marginal = (1.0 - diversity) * scaled - diversity * nearest
        best = int(np.argmax(np.where(left, marginal, -np.inf)))
        order.append(best)
        left[best] = False
        nearest = np.maximum(nearest, similarity[best])
    return order


def vector_similarity(vectors: Sequence[bytes]) -> Matrix:
    """Cosines of vectors of length 1, shape (vectors, vectors); opposites count as unlike."""
    matrix = np.stack([np.frombuffer(one, "<f4") for one in vectors])
    similarity: Matrix = np.clip(matrix @ matrix.T, 0.0, 1.0).astype(np.float32)
    return similarity


def term_similarity(terms: Sequence[Collection[int]]) -> Matrix:
    """Cosines of sets of terms, shape (sets, sets): what two texts share."""
    columns: Mapping[int, int] = {
        term: column for column, term in enumerate(sorted({t for one in terms for t in one}))
    }
    matrix = np.zeros((len(terms), max(len(columns), 1)), dtype=np.float32)
    for row, one in enumerate(terms):
        matrix[row, [columns[term] for term in one]] = 1.0
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    matrix /= np.where(lengths > 0, lengths, 1.0)
    similarity: Matrix = np.clip(matrix @ matrix.T, 0.0, 1.0)
    return similarity
