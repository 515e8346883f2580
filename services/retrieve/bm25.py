"""BM25 as sparse vectors: Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25 and
Beyond" (2009).

A chunk's vector holds the saturated, length-normalised frequencies, a question's the weights of
its terms; the engine multiplies by the terms' inverse document frequencies.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from services.retrieve.ports import SparseVector

K1 = 1.2
B = 0.75


def term_id(term: str) -> int:
    """CRC-32 spreads short strings well; a rare clash costs little."""
    return zlib.crc32(term.encode())


def frequencies(terms: Iterable[str]) -> Counter[int]:
    """Frequencies by term id."""
    return Counter(map(term_id, terms))


def weighted(fields: Sequence[tuple[Mapping[int, int], float]]) -> SparseVector:
    """A chunk's vector.

    Args:
        fields: frequencies by term id, and the average length of such a field in terms. Each field
            is normalised by its own length; a term id that two share counts once, at its best.
    """
    weights: dict[int, float] = {}
    for counts, average in fields:
        norm = K1 * (1 - B + B * sum(counts.values()) / average)
        for term, count in counts.items():
            weight = count * (K1 + 1) / (count + norm)
            weights[term] = max(weight, weights.get(term, 0.0))
    return SparseVector(tuple(weights), tuple(weights.values()))


def query_vector(fields: Sequence[tuple[Mapping[str, int], float]]) -> SparseVector:
    """A question's vector: terms with their frequencies, times the weight of their field."""
    weights: dict[int, float] = {}
    for counts, weight in fields:
        for term, count in counts.items():
            number = term_id(term)
            weights[number] = weights.get(number, 0.0) + weight * count
    return SparseVector(tuple(weights), tuple(weights.values()))
