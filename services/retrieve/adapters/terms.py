"""The analyser of the sparse arm without a dictionary: stems and character bigrams as term ids.

One vocabulary for every language: a text is analysed script by script, so questions and
collections may mix languages. Compared with the engine's own analyser in ADR 0004, with morphemes
in ADR 0015.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from services.retrieve.bm25 import frequencies, query_vector, weighted
from services.retrieve.ports import SparseVector
from services.text.terms import content_terms

# Terms of a typical chunk, for as long as a collection is too small to have an average of its own.
_TYPICAL = {"ja": (256.0,)}
_TYPICAL_ELSEWHERE = (100.0,)


class TermsAnalyzer:
    """BM25 weights of content terms."""

    @property
    def id(self) -> str:
        return "terms@1"

    def start(self) -> None:
        """There is nothing to load."""

    def lengths(self, text: str) -> tuple[float, ...]:
        return (float(len(content_terms(text))),)

    def document(
        self, text: str, language: str, averages: Mapping[str, Sequence[float]]
    ) -> SparseVector:
        (typical,) = averages.get(language) or _TYPICAL.get(language, _TYPICAL_ELSEWHERE)
        return weighted([(frequencies(content_terms(text)), typical)])

    def fields(self, text: str) -> tuple[list[str], list[str]]:
        return content_terms(text), []

    def query(self, text: str, language: str) -> SparseVector:
        return query_vector([(Counter(content_terms(text)), 1.0)])
