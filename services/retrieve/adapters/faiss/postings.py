"""The sparse arm: postings by term in a few sorted arrays, merged as they grow.

A part is made of some chunks at once and never changes. Two parts of about one size become one,
so n chunks lie in about log(n) parts (O'Neil et al., "The Log-Structured Merge-Tree", 1996).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.retrieve.ports import SparseVector

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Part:
    """Postings sorted by term."""

    terms: NDArray[np.uint32]
    """Each term once."""
    starts: NDArray[np.int64]
    """Where the postings of each begin, and where the last ones end."""
    rows: NDArray[np.int32]
    weights: NDArray[np.float32]

    def of(self, term: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        place = int(np.searchsorted(self.terms, np.uint32(term)))
        if place == len(self.terms) or self.terms[place] != term:
            return self.rows[:0], self.weights[:0]
        part = slice(int(self.starts[place]), int(self.starts[place + 1]))
        return self.rows[part], self.weights[part]


class Postings:
    """The postings of a collection. Rows count from 0; dead ones are told with each question."""

    def __init__(self) -> None:
        self._parts: list[_Part] = []

    def add(
        self,
        first: int,
        vectors: Sequence[tuple[NDArray[np.uint32], NDArray[np.float32]]],
    ) -> None:
        """Add rows from `first` on, given with their terms and weights."""
        if not vectors:
            return
        counts = [len(terms) for terms, _ in vectors]
        rows = np.repeat(np.arange(first, first + len(vectors)), counts).astype(np.int32)
        part = _sorted(
            np.concatenate([terms for terms, _ in vectors]).astype(np.uint32),
            rows,
            np.concatenate([weights for _, weights in vectors]).astype(np.float32),
        )
        self._parts.append(part)
        while len(self._parts) > 1 and len(self._parts[-1].rows) * 2 > len(self._parts[-2].rows):
            last, before = self._parts.pop(), self._parts.pop()
            self._parts.append(_merged(before, last))

    def idf(self, terms: Sequence[int], alive: Flags) -> list[float]:
        """ln((N - n + .5) / (n + .5) + 1) for n of N living rows; 0 for a term that none has."""
        total = int(np.count_nonzero(alive))
        found = []
        for term in terms:
            count = sum(int(np.count_nonzero(alive[one.of(term)[0]])) for one in self._parts)
            found.append(float(np.log((total - count + 0.5) / (count + 0.5) + 1)) if count else 0.0)
        return found

    def search(
        self, query: SparseVector, limit: int, alive: Flags, allowed: Flags
    ) -> list[tuple[int, float]]:
        """Rows with their scores, best first; those with equal scores in order."""
        scores = np.zeros(len(alive), np.float64)
        weights = self.idf(query.indices, alive)
        for term, value, idf in zip(query.indices, query.values, weights, strict=True):
            if idf:
                for part in self._parts:
                    rows, given = part.of(term)
                    scores[rows] += value * idf * given
        hits = np.flatnonzero((scores > 0) & allowed)
        if len(hits) > limit:
            # Of those that share the last place the first rows win.
            least = np.partition(scores[hits], -limit)[-limit]
            hits = hits[scores[hits] >= least]
        order = np.lexsort((hits, -scores[hits]))[:limit]
        return [(int(row), float(scores[row])) for row in hits[order]]


def _sorted(
    terms: NDArray[np.uint32], rows: NDArray[np.int32], weights: NDArray[np.float32]
) -> _Part:
    order = np.argsort(terms, kind="stable")
    terms = terms[order]
    unique, starts = np.unique(terms, return_index=True)
    return _Part(unique, np.append(starts, len(terms)), rows[order], weights[order])


def _merged(one: _Part, other: _Part) -> _Part:
    terms = [np.repeat(part.terms, np.diff(part.starts)) for part in (one, other)]
    return _sorted(
        np.concatenate(terms),
        np.concatenate([one.rows, other.rows]),
        np.concatenate([one.weights, other.weights]),
    )
