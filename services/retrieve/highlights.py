"""Where a text says what a query asks, in the text as its author wrote it.

Texts are analysed in a folded form (NFKC, lower case, without invisible characters), shown in the
original one. A fold remembers which original characters each folded one came from. The analyser is
asked only through its `query` method, so any analyser will do: words of Latin script are asked one
by one; for Japanese, which has no spaces, the shortest pieces of the query that give one of its
terms are looked for in the text.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.retrieve.searches import Highlights, Span
from services.text.sentences import split_sentences

TermIds = Callable[[str], Iterable[int]]
"""The ids of a text's terms."""

MAX_SENTENCES = 2
_MAX_PIECE = 8
"""Characters of a Japanese word, at most."""
_MAX_JAPANESE = 256
"""Japanese characters of a query that are cut into pieces; the rest is not highlighted."""
_JAPANESE = (
    "\u3005\u3006\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
_RUN = re.compile(
    rf"(?P<japanese>[{_JAPANESE}]+)|(?P<word>[^\W_{_JAPANESE}]+(?:[._'/-][^\W_{_JAPANESE}]+)*)"
)
_HALF_WIDTH_MARKS = "\uff9e\uff9f"


@dataclass(frozen=True, slots=True)
class Fold:
    """A folded text, and where its characters come from."""

    text: str
    starts: Sequence[int]
    """Of each folded character, the first original one."""
    ends: Sequence[int]
    """Of each folded character, the original one after its last."""

    def span(self, start: int, end: int) -> Span:
        """The original characters of a range of folded ones, which is not empty."""
        return Span(self.starts[start], self.ends[end - 1])


@dataclass(frozen=True, slots=True)
class QueryTerms:
    """A query's terms as a text may spell them."""

    weights: Mapping[int, float]
    """What each term says about the subject: its IDF."""
    spellings: Mapping[int, str]
    """Each term as the query spells it, as far as that is known."""
    pieces: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Japanese pieces, with the terms that they give."""

    @property
    def mass(self) -> float:
        """The weight of all terms together."""
        return sum(self.weights.values())

    def coverage(self, terms: Iterable[int]) -> float:
        """Share of that weight that some terms have, from 0 to 1."""
        mass = self.mass
        return sum(self.weights.get(one, 0.0) for one in set(terms)) / mass if mass else 0.0


def fold(text: str) -> Fold:
    """Fold a text, character by character with the marks that belong to it."""
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    start = 0
    while start < len(text):
        end = start + 1
        while end < len(text) and (
            unicodedata.combining(text[end]) or text[end] in _HALF_WIDTH_MARKS
        ):
            end += 1
        if unicodedata.category(text[start]) != "Cf":
            folded = unicodedata.normalize("NFKC", text[start:end]).lower()
            pieces.append(folded)
            starts += [start] * len(folded)
            ends += [end] * len(folded)
        start = end
    return Fold("".join(pieces), starts, ends)


def query_terms(query: str, weights: Mapping[int, float], term_ids: TermIds) -> QueryTerms:
    """How a text may spell the terms of a query.

    Args:
        query: the normalised query.
        weights: its terms with what each says.
        term_ids: the analyser.
    """
    spellings: dict[int, str] = {}
    shortest: dict[int, list[str]] = {}
    budget = _MAX_JAPANESE
    for run in _RUN.finditer(fold(query).text):
        if run.lastgroup == "word":
            for one in term_ids(run[0]):
                if one in weights:
                    spellings.setdefault(one, run[0])
            continue
        japanese = run[0][:budget]
        budget -= len(japanese)
        # From the shortest on: a piece counts for the terms that no shorter piece has given.
        for length in range(1, min(_MAX_PIECE, len(japanese)) + 1):
            for start in range(len(japanese) - length + 1):
                piece = japanese[start : start + length]
                for one in term_ids(piece):
                    known = shortest.setdefault(one, []) if one in weights else None
                    if known is not None and (not known or len(known[0]) == length):
                        known.append(piece)
    pieces: dict[str, set[int]] = {}
    for one, found in shortest.items():
        spellings.setdefault(one, found[0])
        for piece in found:
            pieces.setdefault(piece, set()).add(one)
    return QueryTerms(weights, spellings, {piece: frozenset(ids) for piece, ids in pieces.items()})


def highlight(text: str, wanted: QueryTerms, term_ids: TermIds) -> Highlights:
    """The spans of matched terms and the best sentences of an original text."""
    folded = fold(text)
    matches = sorted(_matches(folded.text, wanted, term_ids), key=lambda one: one[:2])
    spans: list[tuple[int, int]] = []
    for start, end, _ in matches:
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    terms = tuple(folded.span(start, end) for start, end in spans)
    return Highlights(terms, _sentences(text, folded, matches, wanted))


def _matches(
    text: str, wanted: QueryTerms, term_ids: TermIds
) -> Iterable[tuple[int, int, frozenset[int]]]:
    """Ranges of a folded text with the query's terms that they are."""
    known: dict[str, frozenset[int]] = {}
    pieces = sorted(wanted.pieces, key=len, reverse=True)
    pattern = re.compile("(?=(" + "|".join(map(re.escape, pieces)) + "))") if pieces else None
    for run in _RUN.finditer(text):
        if run.lastgroup == "word":
            word = run[0]
            if word not in known:
                known[word] = frozenset(one for one in term_ids(word) if one in wanted.weights)
            if known[word]:
                yield run.start(), run.end(), known[word]
        elif pattern is not None:
            for match in pattern.finditer(run[0]):
                start = run.start() + match.start()
                yield start, start + len(match[1]), wanted.pieces[match[1]]


def _sentences(
    text: str,
    folded: Fold,
    matches: Sequence[tuple[int, int, frozenset[int]]],
    wanted: QueryTerms,
) -> tuple[Span, ...]:
    """The sentences that say most of the query; none when no term was found."""
    scored: list[tuple[float, int, Span]] = []
    for sentence in split_sentences(text):
        terms = {
            one
            for start, end, ids in matches
            if sentence.start <= folded.starts[start] and folded.ends[end - 1] <= sentence.end
            for one in ids
        }
        if terms:
            span = Span(sentence.start, sentence.end)
            scored.append((-wanted.coverage(terms), sentence.start, span))
    scored.sort(key=lambda one: one[:2])
    best = [one for one in scored[:MAX_SENTENCES] if one[0] <= scored[0][0] / 2]
    return tuple(sorted((span for _, _, span in best), key=lambda span: span.start))
