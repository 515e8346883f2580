"""What whoosh is given: terms that are analysed already, and values for filters as terms."""

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from whoosh import fields, query
from whoosh.analysis import Token
from whoosh.scoring import BM25F

from services.retrieve.adapters.facets import facets_of
from services.retrieve.bm25 import K1, B
from services.retrieve.ports import Bounds, FieldTerms, WordQuery

FORMAT = "1"
"""Of the index; another one is made anew."""

BOOSTS = {"title": 1.0, "heading": 0.5, "body": 1.0, "bigrams": 0.4}
"""Of the words of a field (ADR 24)."""
MAX_TERMS = 64
"""Terms of a query that are looked for; the rarest are kept."""

_BIGRAMS = "bigrams"


class Given:
    """Whoosh's analyser for text that was analysed by ours: a list of terms."""

    def __call__(
        self, value: Sequence[str], *, positions: bool = False, start_pos: int = 0, **_: Any
    ) -> Iterator[Token]:
        token = Token(positions)
        token.boost = 1.0
        for place, term in enumerate(value, start_pos):
            token.text = token.original = term
            token.stopped = False
            if positions:
                token.pos = place
            yield token

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Given)

    def __hash__(self) -> int:
        return hash(Given)


def schema() -> fields.Schema:
    """Fields of a chunk; nothing is stored but the point."""
    words = {name: fields.TEXT(analyzer=Given(), phrase=True) for name in BOOSTS}
    return fields.Schema(
        point=fields.NUMERIC(int, 64, shift_step=0, sortable=True),
        facets=fields.KEYWORD(analyzer=Given(), scorable=False),
        **words,
    )


def weighting() -> BM25F:
    """BM25 of each field by itself, added up; the parameters are those of our own vectors."""
    return BM25F(B=B, K1=K1)


def document(point: int, payload: Mapping[str, Any], terms: FieldTerms) -> dict[str, Any]:
    """The values of a chunk's fields."""
    marks = {_path_mark(path) for path, _ in facets_of(payload)}
    marks.update(_value_mark(path, value) for path, value in facets_of(payload))
    return {
        "point": point,
        "facets": sorted(marks),
        "title": terms.title,
        "heading": terms.heading,
        "body": terms.body,
        _BIGRAMS: terms.bigrams,
    }


def to_query(asked: WordQuery, rarity: Mapping[tuple[str, str], float]) -> query.Query:
    """A query of whoosh.

    Args:
        asked: what is asked.
        rarity: the IDF of its terms by field and term; 0 for those that are nowhere.
    """
    pairs = [("words", *one) for one in asked.words] + [(_BIGRAMS, *one) for one in asked.bigrams]
    weighed = [
        (weight * max(rarity.get((name, term), 0.0) for name in _names(kind)), kind, term, weight)
        for kind, term, weight in pairs
    ]
    kept = sorted((one for one in weighed if one[0] > 0), reverse=True)[:MAX_TERMS]
    words = query.Or(
        [
            query.Term(name, term, boost=weight * BOOSTS[name])
            for _, kind, term, weight in kept
            for name in _names(kind)
            if rarity.get((name, term), 0.0) > 0
        ]
    )
    required = []
    for clause in asked.clauses:
        names = [clause.field] if clause.field else _names("words")
        ways = [_sequence(name, clause.words, clause.phrase) for name in names if clause.words]
        if clause.bigrams and not clause.field:
            ways.append(_sequence(_BIGRAMS, clause.bigrams, clause.phrase))
        if ways:
            required.append(query.Or(ways))
    if not required:
        return words
    both = query.And(required)
    return query.AndMaybe(both, words) if kept else both


def terms_of(asked: WordQuery) -> Iterator[tuple[str, str]]:
    """Fields and terms that the words of a query may be looked for in."""
    for term, _ in asked.words:
        yield from ((name, term) for name in _names("words"))
    yield from ((_BIGRAMS, term) for term, _ in asked.bigrams)


def _names(kind: str) -> list[str]:
    return [_BIGRAMS] if kind == _BIGRAMS else ["title", "heading", "body"]


def _sequence(name: str, terms: Sequence[str], phrase: bool) -> query.Query:
    if phrase and len(terms) > 1:
        return query.Phrase(name, list(terms), boost=BOOSTS[name])
    return query.And([query.Term(name, term, boost=BOOSTS[name]) for term in terms])


class WhooshDialect:
    """Conditions as queries over the marks of `document`."""

    def group(
        self,
        must: Sequence[query.Query],
        must_not: Sequence[query.Query],
        should: Sequence[query.Query],
    ) -> query.Query:
        wanted = list(must)
        if should:
            wanted.append(query.Or(list(should)))
        positive = query.And(wanted) if wanted else query.Every()
        return query.AndNot(positive, query.Or(list(must_not))) if must_not else positive

    def any_of(self, path: str, values: Sequence[str]) -> query.Query:
        return query.Or([query.Term("facets", _value_mark(path, value)) for value in values])

    def numbers(self, path: str, bounds: Bounds) -> query.Query:
        low = bounds.gte if bounds.gt is None else bounds.gt
        high = bounds.lte if bounds.lt is None else bounds.lt
        parts = [
            _between(
                path,
                float("-inf") if low is None else low,
                float("inf") if high is None else high,
                bounds.gt is not None,
                bounds.lt is not None,
            )
        ]
        if bounds.gt is not None and bounds.gte is not None:
            parts.append(_between(path, bounds.gte, float("inf"), False, False))
        if bounds.lt is not None and bounds.lte is not None:
            parts.append(_between(path, float("-inf"), bounds.lte, False, False))
        return parts[0] if len(parts) == 1 else query.And(parts)

    def empty(self, path: str) -> query.Query:
        return query.AndNot(query.Every(), query.Term("facets", _path_mark(path)))

    def points(self, points: frozenset[int]) -> query.Query:
        raise NotImplementedError("points are left out of what was found")


def _between(path: str, low: float, high: float, above: bool, below: bool) -> query.Query:
    start, end = _value_mark(path, low), _value_mark(path, high)
    if start > end or (start == end and (above or below)):
        return query.NullQuery
    return query.TermRange("facets", start, end, above, below)


def _path_mark(path: str) -> str:
    return f"{path}\0?"


def _value_mark(path: str, value: str | float) -> str:
    """A string by its hash; a number so that marks are ordered as numbers are."""
    if isinstance(value, str):
        digest = hashlib.blake2b(value.encode(errors="replace"), digest_size=12).hexdigest()
        return f"{path}\0s{digest}"
    (bits,) = struct.unpack(">Q", struct.pack(">d", value or 0.0))  # -0 is 0
    ordered = bits ^ 0xFFFF_FFFF_FFFF_FFFF if bits >> 63 else bits | 1 << 63
    return f"{path}\0n{ordered:016x}"
