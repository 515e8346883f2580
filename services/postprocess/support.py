"""How well words are supported by other words. docs/confidence.md has the formula."""

from collections import Counter
from collections.abc import Iterable, Mapping

from services.text.sentences import split_sentences
from services.text.terms import content_terms

NUMBER_WEIGHT = 3.0
"""A figure that the passage does not have is the surest sign of an unsupported sentence."""


def weighted_terms(text: str) -> Mapping[str, float]:
    """The distinct content terms of `text` with their weights."""
    return {
        term: NUMBER_WEIGHT if any(c.isdigit() for c in term) else 1.0
        for term in content_terms(text)
    }


def containment(terms: Mapping[str, float], evidence: Iterable[str]) -> float:
    """The share of the terms' weight that stands in `evidence`, from 0 to 1; 0 without terms."""
    total = sum(terms.values())
    if not total:
        return 0.0
    held = frozenset(evidence)
    return sum(weight for term, weight in terms.items() if term in held) / total


def best_quote(claim: str, text: str) -> tuple[str, float]:
    """The sentence of `text`, verbatim, that supports `claim` best, with its support.

    Of equal ones the one that says least besides wins. An empty text gives an empty quote.
    """
    claimed = weighted_terms(claim)
    best, best_rank, best_support = "", (-1.0, 0.0), 0.0
    for span in split_sentences(text):
        sentence = text[span.start : span.end]
        terms = Counter(content_terms(sentence))
        support = containment(claimed, terms)
        precise = containment(dict.fromkeys(terms, 1.0), claimed)
        if (support, precise) > best_rank:
            best, best_rank, best_support = sentence, (support, precise), support
    return best, best_support
