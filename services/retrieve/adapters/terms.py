"""The analyser of the sparse arm: content terms of both languages, hashed to term ids.

One vocabulary for every language: a text is analysed script by script, so questions and
collections may mix languages. Compared with the engine's own analyser in ADR 0004.
"""

import zlib
from collections import Counter

from services.retrieve.ports import SparseVector
from services.text.terms import content_terms

_K1 = 1.2
_B = 0.75
# Terms of a typical chunk. Japanese is measured against more: its bigrams overlap, so a chunk has
# more terms than it has words, and long paragraphs were punished too hard.
_TYPICAL_TERMS = 100.0
_TYPICAL_TERMS_JA = 256.0


class TermsAnalyzer:
    """BM25 weights of content terms (k1 1.2, b 0.75)."""

    @property
    def id(self) -> str:
        return "terms@1"

    def document(self, text: str, language: str) -> SparseVector:
        counts = _counts(text)
        typical = _TYPICAL_TERMS_JA if language == "ja" else _TYPICAL_TERMS
        norm = _K1 * (1 - _B + _B * counts.total() / typical)
        return SparseVector(
            tuple(counts), tuple(count * (_K1 + 1) / (count + norm) for count in counts.values())
        )

    def query(self, text: str, language: str) -> SparseVector:
        counts = _counts(text)
        return SparseVector(tuple(counts), (1.0,) * len(counts))


def _counts(text: str) -> Counter[int]:
    """Frequencies by term id. CRC-32 spreads short strings well; a rare clash costs little."""
    return Counter(zlib.crc32(term.encode()) for term in content_terms(text))
