"""Answers by choosing the sentences that carry them."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.infer.extraction.questions import Kind, holds, kind_of
from services.infer.extraction.sentences import is_fragment, sentences_of, without_markers
from services.infer.ports import Passage
from services.text.language import detect_language
from services.text.normalize import normalize
from services.text.terms import content_terms

MAX_ANSWER_SENTENCES = 3
MAX_SENTENCES = 2_000
"""Sentences that are looked at, best passages first."""

# Calibrated on Japanese and English questions with and without their passage among distractors;
# docs/adr/0006-extractive-engine.md has the figures.
MIN_COVERAGE = 0.34
"""Share of the question's term weight that the answer's surroundings must hold."""
MIN_SENTENCE_COVERAGE = 0.12
"""Share that the chosen sentence itself must hold."""

_NEIGHBOUR = 0.40
_PASSAGE = 0.30
_HEADING = 0.28
_KIND_BONUS = 0.16
_RANK_PENALTY = 0.07
_PHRASE = 0.3
_PHRASE_LENGTH = 3
_OTHER_LANGUAGE = 0.75
_ANAPHORA_SHARE = 0.6
_QUESTION_PENALTY = 0.3
_FRAGMENT = 0.5
_CELL = 0.85
_SECOND = 0.72
_NEW_COVERAGE = 0.09
_CLOSE = 0.84

_ANAPHORA = re.compile(
    r"^(?:これ|それ|この|その|ここ|そこ|同|彼|彼女|また、この|こうした|そうした|前者|後者|そのため|このため)"
    r"|^(?:It|This|That|These|Those|They|He|She|Its|Their|Such|Then|There)\b"
)
# 何メートル, 何年: what is asked for by its unit says nothing about the subject.
_COUNTED = re.compile(r"何(?:[ァ-ヶー]+|[\u4e00-\u9fff]?)|どの(?:国|都市|県|地域|場所|程度)")
_CELLS = frozenset({Kind.NUMBER, Kind.TIME, Kind.PLACE})
"""Kinds whose answers also stand in tables and lists."""
_QUESTION_WORDS = frozenset(
    content_terms(
        "what which who where when why how many much tell explain describe please answer question "
        "name called kind type thing use work need get make do "
        "何 誰 何年 何人 何者 名前 場所 理由 方法 教えて 説明 質問 回答"
    )
)


@dataclass(frozen=True, slots=True)
class AnswerSentence:
    """A sentence of the answer; marker 0: it rests on the caller's own text."""

    text: str
    marker: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    text: str
    terms: frozenset[str]
    passage: int
    place: int
    score: float = 0.0
    coverage: float = 0.0
    """Share of the question that the sentence, its neighbours, headings and passage hold."""
    own: float = 0.0
    """Share that the sentence itself holds."""


def answer(question: str, passages: Sequence[Passage]) -> list[AnswerSentence]:
    """The one to three sentences that answer `question`, best first unless they stand together.

    Empty when the passages do not answer: too little of what the question is about stands in
    them. Linear in the passages' length.
    """
    ranked = rank(question, passages)
    if not ranked or not is_relevant(ranked[0]):
        return []
    return [
        AnswerSentence(without_markers(chosen.text), passages[chosen.passage].marker)
        for chosen in _choose(question, ranked)
    ]


def is_relevant(best: _Candidate) -> bool:
    return best.coverage >= MIN_COVERAGE and best.own >= MIN_SENTENCE_COVERAGE


def question_terms(question: str) -> list[str]:
    """The distinct terms that an answer should share with the question."""
    asked = _COUNTED.sub(" ", normalize(question))
    terms = list(dict.fromkeys(content_terms(asked)))
    return [term for term in terms if term not in _QUESTION_WORDS] or terms


def rank(question: str, passages: Sequence[Passage]) -> list[_Candidate]:
    """Every sentence of the passages with its score, best first."""
    terms = question_terms(question)
    groups = _candidates(passages)
    sentences = [candidate for group in groups for candidate in group]
    if not terms or not sentences:
        return []
    weight = _weights(terms, sentences)
    total = sum(weight.values())
    kind = kind_of(question)
    language = detect_language(question)
    phrases = _phrases(question)

    def share(held: frozenset[str] | set[str]) -> float:
        return sum(weight[term] for term in terms if term in held) / total

    ranked: list[_Candidate] = []
    for number, group in enumerate(groups):
        passage = passages[number]
        above = set(content_terms(f"{passage.title} {passage.heading}"))
        whole = share(set().union(*(c.terms for c in group)) | above) if group else 0.0
        headed = share(above)
        spoken = passage.language if passage.language not in ("", "und") else ""
        same = (spoken or detect_language(passage.text)) == language
        for i, candidate in enumerate(group):
            around = set(candidate.terms)
            for near in group[max(0, i - 1) : i + 2]:
                around |= near.terms
            own = share(candidate.terms)
            near_gain = share(around) - own
            if i and _ANAPHORA.match(candidate.text):
                # What it points at stands in the sentence before.
                carried = share(candidate.terms | group[i - 1].terms) - own
                own += _ANAPHORA_SHARE * carried
                near_gain -= carried
            score = (
                own
                + _PHRASE * _phrases_shared(phrases, candidate.text)
                + _NEIGHBOUR * near_gain
                + _PASSAGE * whole
                + _HEADING * headed
                - _RANK_PENALTY * math.log1p(number)
            )
            if kind is not Kind.OTHER and holds(kind, candidate.text, question):
                score += _KIND_BONUS * (0.3 + own)
            if not same:
                score *= _OTHER_LANGUAGE
            if candidate.text.rstrip().endswith(("?", "？")):
                score -= _QUESTION_PENALTY  # a question is rarely an answer
            if is_fragment(candidate.text):
                # A heading repeats the question's words and answers nothing.
                holding = kind in _CELLS and holds(kind, candidate.text, question)
                score *= _CELL if holding else _FRAGMENT
            ranked.append(
                _Candidate(
                    candidate.text,
                    candidate.terms,
                    number,
                    i,
                    score,
                    coverage=max(share(around | above), 0.9 * whole),
                    own=own,
                )
            )
    return sorted(ranked, key=lambda c: (-c.score, c.passage, c.place))


def _phrases(text: str) -> frozenset[str]:
    """Character trigrams: they also see verbs in kana, and words that stand together."""
    plain = "".join(char for char in normalize(text).lower() if char.isalnum())
    return frozenset(plain[i : i + _PHRASE_LENGTH] for i in range(len(plain) - _PHRASE_LENGTH + 1))


def _phrases_shared(phrases: frozenset[str], text: str) -> float:
    return len(phrases & _phrases(text)) / len(phrases) if phrases else 0.0


def _candidates(passages: Sequence[Passage]) -> list[list[_Candidate]]:
    groups: list[list[_Candidate]] = []
    left = MAX_SENTENCES
    for number, passage in enumerate(passages):
        group: list[_Candidate] = []
        for text in sentences_of(passage.text):
            if left == 0:
                break
            left -= 1
            group.append(_Candidate(text, frozenset(content_terms(text)), number, len(group)))
        groups.append(group)
    return groups


def _weights(terms: Sequence[str], sentences: Sequence[_Candidate]) -> dict[str, float]:
    """Rarity: a term that every sentence holds tells them apart least; one that none holds
    counts in full, because it is what the passages lack."""
    count = len(sentences)
    frequency = dict.fromkeys(terms, 0)
    for sentence in sentences:
        for term in frequency.keys() & sentence.terms:
            frequency[term] += 1
    return {term: math.log(1 + (count + 1) / (df + 0.5)) for term, df in frequency.items()}


def _choose(question: str, ranked: Sequence[_Candidate]) -> list[_Candidate]:
    best = ranked[0]
    chosen = [best]
    language = detect_language(best.text)
    asked = set(question_terms(question))
    covered = asked & best.terms
    if _ANAPHORA.match(best.text) and best.place > 0:
        before = next(
            (c for c in ranked if c.passage == best.passage and c.place == best.place - 1), None
        )
        if before is not None and asked & before.terms - covered:
            chosen.append(before)
            covered |= asked & before.terms
    kind = kind_of(question)
    if kind in (Kind.NUMBER, Kind.TIME) and not holds(kind, best.text, question):
        # The figure often stands one sentence further, which names its subject no more.
        near = {c.place - best.place: c for c in ranked if c.passage == best.passage}
        for distance in (1, -1, 2):
            beside = near.get(distance)
            if beside and beside not in chosen and holds(kind, beside.text, question):
                chosen.append(beside)
                break
    for candidate in ranked[1:]:
        if len(chosen) >= MAX_ANSWER_SENTENCES or candidate.score < _SECOND * best.score:
            break
        if detect_language(candidate.text) != language:
            continue
        if candidate in chosen or any(_repeats(candidate, other) for other in chosen):
            continue
        gain = len((asked & candidate.terms) - covered) / max(1, len(asked))
        if gain >= _NEW_COVERAGE or (len(chosen) == 1 and candidate.score >= _CLOSE * best.score):
            chosen.append(candidate)
            covered |= asked & candidate.terms
    # Sentences of one passage read in its order; the best passage comes first.
    order = {number: i for i, number in enumerate(dict.fromkeys(c.passage for c in chosen))}
    return sorted(chosen, key=lambda c: (order[c.passage], c.place))


def _repeats(a: _Candidate, b: _Candidate) -> bool:
    smaller = min(len(a.terms), len(b.terms))
    return smaller == 0 or len(a.terms & b.terms) / smaller > 0.7
