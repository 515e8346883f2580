"""What a user writes beyond words: "exact phrases" and fields (title:, heading:, body:).

For sparse arms that read words (SPARSE_BACKEND=whoosh). Whatever is no operator is a word: no text
is refused, and none means something else than it says by accident.

    kubernetes "rolling update" heading:probes title:"release notes"

A phrase, and what a field is asked for, must be there; the other words make one chunk better than
another. Phrases are compared as analysed text is: without function words, by stems or morphemes.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.retrieve.bm25 import term_id
from services.retrieve.ports import Analyzer, Clause, SparseVector, WordQuery

FIELDS = ("title", "heading", "body")
MAX_CLAUSES = 16
"""Phrases and fields of a query that are heeded; further ones are read as words."""

_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "‟": '"'})
_FIELD = rf"(?<!\S)(?P<{{}}>{'|'.join(FIELDS)}):"
_OPERATOR = re.compile(
    rf'(?:{_FIELD.format("of_phrase")})?"(?P<phrase>[^"]*)"'
    rf"|{_FIELD.format('of_word')}(?P<word>[^\s\"]+)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Operator:
    """A phrase, or what a field is asked for."""

    text: str
    field: str = ""
    """One of `FIELDS`; empty for any."""
    phrase: bool = False


@dataclass(frozen=True, slots=True)
class Wording:
    """A query's text, taken apart."""

    plain: str
    """All its words without the signs of operators: what is embedded and highlighted."""
    words: str
    """Those outside of operators."""
    operators: tuple[Operator, ...] = ()


def parse(text: str) -> Wording:
    """Take a normalised query apart. Never raises."""
    text = text.translate(_QUOTES)
    operators: list[Operator] = []
    plain: list[str] = []
    words: list[str] = []
    end = 0
    for found in _OPERATOR.finditer(text):
        between = text[end : found.start()]
        plain.append(between)
        words.append(between)
        end = found.end()
        said = found["word"] if found["phrase"] is None else found["phrase"]
        plain.append(f" {said} ")
        if len(operators) < MAX_CLAUSES and said.strip():
            field = found["of_phrase"] or found["of_word"] or ""
            operators.append(Operator(said.strip(), field.lower(), found["phrase"] is not None))
        else:
            words.append(f" {said} ")
    if not operators:
        return Wording(text, text)
    plain.append(text[end:])
    words.append(text[end:])
    return Wording(_spaced(plain), _spaced(words), tuple(operators))


def _spaced(parts: Iterable[str]) -> str:
    return " ".join("".join(parts).split())


def word_query(
    wording: Wording, analyzer: Analyzer, before: SparseVector, after: SparseVector
) -> WordQuery:
    """A query for an arm that reads words.

    Args:
        wording: the query.
        analyzer: of the collection.
        before: the analysed query, `Wording.plain`.
        after: the same with the weights that the terms get in this collection: words are weighted
            by how much that changed them.
    """
    factors: Mapping[int, float] = {
        term: now / was
        for term, was, now in zip(before.indices, before.values, after.values, strict=True)
        if was > 0
    }
    words, bigrams = analyzer.fields(wording.words)
    clauses = []
    for one in wording.operators:
        said = analyzer.fields(one.text)
        if any(said):  # of function words alone it asks nothing
            clauses.append(Clause(one.field, tuple(said[0]), tuple(said[1]), one.phrase))
    return WordQuery(_weighted(words, factors), _weighted(bigrams, factors), tuple(clauses))


def _weighted(terms: Iterable[str], factors: Mapping[int, float]) -> tuple[tuple[str, float], ...]:
    counts = Counter(terms)
    return tuple((term, count * factors.get(term_id(term), 1.0)) for term, count in counts.items())
