"""Summaries by ranking sentences: central ones, early ones, none twice."""

import math
from collections import Counter
from dataclasses import dataclass

from services.infer.extraction.sentences import sentences_of
from services.infer.ports import SummaryLength
from services.infer.tokens import estimate_tokens
from services.text.terms import content_terms

MAX_SENTENCES = 4_000
"""Sentences that are ranked; of a longer text evenly spaced ones."""
_SENTENCES = {SummaryLength.SHORT: 2, SummaryLength.MEDIUM: 5, SummaryLength.LONG: 12}
_SHARE = {SummaryLength.SHORT: 0.34, SummaryLength.MEDIUM: 0.5, SummaryLength.LONG: 0.7}
_REDUNDANT = 0.6
_ITERATIONS = 12
_DAMPING = 0.85


@dataclass(frozen=True, slots=True)
class Ranked:
    """A sentence with its place in the text and its weight."""

    index: int
    text: str
    terms: frozenset[str]
    score: float


def summarize(text: str, length: SummaryLength) -> list[str]:
    """The sentences of `text` that say most, in their order; at least one unless it is blank."""
    ranked = rank(text)
    if not ranked:
        return []
    limit = _SENTENCES[length]
    wanted = min(limit, max(1, math.ceil(len(ranked) * _SHARE[length])))
    chosen: list[Ranked] = []
    for sentence in sorted(ranked, key=lambda s: (-s.score, s.index)):
        if any(_overlap(sentence.terms, other.terms) > _REDUNDANT for other in chosen):
            continue
        chosen.append(sentence)
        if len(chosen) == wanted:
            break
    return [sentence.text for sentence in sorted(chosen, key=lambda s: s.index)]


def shorten(text: str, tokens: int) -> str:
    """The sentences that say most, in their order, in at most `tokens` tokens."""
    chosen: list[Ranked] = []
    for sentence in sorted(rank(text), key=lambda s: (-s.score, s.index)):
        cost = estimate_tokens(sentence.text) + 1
        if cost <= tokens:
            chosen.append(sentence)
            tokens -= cost
    return "\n".join(s.text for s in sorted(chosen, key=lambda s: s.index))


def rank(text: str) -> list[Ranked]:
    """All sentences with their centrality. Linear in the length of the text.

    TextRank on the graph of sentences and their terms: a sentence is important when its terms
    are, a term when important sentences hold it. Walking over terms instead of over pairs of
    sentences keeps it linear.
    """
    texts = list(sentences_of(text))
    if len(texts) > MAX_SENTENCES:
        step = len(texts) / MAX_SENTENCES
        texts = [texts[int(i * step)] for i in range(MAX_SENTENCES)]
    bags = [Counter(content_terms(sentence)) for sentence in texts]
    frequency = Counter(term for bag in bags for term in bag)
    count = len(texts)
    # A term of one sentence links nothing; a term of every sentence says nothing.
    weight = {
        term: math.log(1 + count / df) for term, df in frequency.items() if df > 1 or count < 3
    }
    links = [{t: weight[t] for t in bag if t in weight} for bag in bags]
    out = [sum(link.values()) for link in links]
    held: dict[str, float] = {}
    for link in links:
        for term, value in link.items():
            held[term] = held.get(term, 0.0) + value
    score = [1.0] * count
    for _ in range(_ITERATIONS):
        of_term: dict[str, float] = dict.fromkeys(held, 0.0)
        for link, total, value in zip(links, out, score, strict=True):
            for term, strength in link.items():
                of_term[term] += value * strength / total
        score = [
            1 - _DAMPING + _DAMPING * sum(of_term[t] * w / held[t] for t, w in link.items())
            for link in links
        ]
    return [
        Ranked(i, sentence, frozenset(bags[i]), score[i] * _position(i, count) * _size(sentence))
        for i, sentence in enumerate(texts)
    ]


def _position(index: int, count: int) -> float:
    """The first sentences of a text say what it is about; the last ones conclude."""
    if index == 0:
        return 1.5
    if index < max(3, count // 20):
        return 1.2
    return 1.1 if index == count - 1 else 1.0


def _size(sentence: str) -> float:
    """Fragments such as table cells and headings without marks make poor summaries."""
    tokens = estimate_tokens(sentence)
    if tokens < 5:
        return 0.3
    return 0.8 if tokens < 9 else 1.0


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    smaller = min(len(a), len(b))
    return len(a & b) / smaller if smaller else 0.0
