"""How much each arm of a collection is worth, by questions that its own chunks pose.

A sentence of a chunk, its title or its heading becomes a question, and the chunk without it is
what should be found: the inverse cloze task of Lee, Chang & Toutanova, "Latent Retrieval for
Weakly Supervised Open Domain Question Answering" (ACL 2019). Both arms rank a sample of the
collection. An arm whose skill, its gain above chance, is less than half of the other's gets
nothing. Otherwise the weights are in proportion to the skills, and move on only where the
questions say with confidence (two standard errors) that another weight is better: sixty-four easy
questions cannot tell .5 from .7, and a weight fitted to their noise costs more than it brings
(ADR 0014).
"""

import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.retrieve.fusion import MAX_UNKNOWN, SPARSE_ONLY, normalised
from services.retrieve.ports import ArmWeights, IndexedChunk, SparseVector
from services.text.sentences import split_sentences
from services.text.terms import content_terms

Scores = NDArray[np.float64]

MAX_QUESTIONS = 64
MIN_QUESTIONS = 12
"""With fewer nothing is concluded."""
MIN_SKILL = 0.5
"""Share of the better arm's skill below which an arm is worthless."""
CONFIDENCE = 2.0
"""Standard errors by which a weight must be worse before it is given up."""
NEGLIGIBLE = 0.01
"""Difference in mean gain that nobody notices."""
_GRID = tuple(step / 10 for step in range(11))
_MIN_TERMS = 3
_MAX_TERMS = 40
_MIN_TARGET_TERMS = 6
_CLAUSE = re.compile(r"[、,;:；]\s*")


@dataclass(frozen=True, slots=True)
class PseudoQuestion:
    """A question that a chunk poses."""

    row: int
    """The chunk's place in the sample."""
    text: str
    target: str
    """The chunk as it would be indexed without what became the question."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured for one language of a collection."""

    weights: ArmWeights
    questions: int
    dense: float
    """Mean gain of the dense arm alone: 1 where the chunk came first, falling with its rank."""
    sparse: float
    hybrid: float
    """At the weights."""
    agreement: float
    """Share of the first ten that both arms have."""
    unknown: float
    """Share of tokens that the encoder does not know."""


UNCOVERED = Calibration(SPARSE_ONLY, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""Of a language that the encoder says it does not represent: nothing is asked."""


def pose(sample: Sequence[IndexedChunk], language: str, seed: int) -> list[PseudoQuestion]:
    """Questions of a language, at most `MAX_QUESTIONS`, of distinct chunks in random order."""
    titles: dict[str, int] = {}
    for one in sample:
        for text in {one.title, one.chunk.heading}:
            titles[text] = titles.get(text, 0) + 1
    rows = [row for row, one in enumerate(sample) if one.chunk.language == language]
    dice = random.Random(seed)  # noqa: S311  no secret: the same sample poses the same questions
    dice.shuffle(rows)
    posed: list[PseudoQuestion] = []
    for row in rows:
        one = sample[row]
        # By turns, so that neither kind decides alone. A title that many share asks for no chunk.
        named = [t for t in (one.chunk.heading, one.title) if t and titles[t] == 1]
        of_names, of_sentences = _of_names(one, named), _of_sentences(one, dice)
        kinds = (of_names, of_sentences) if len(posed) % 2 else (of_sentences, of_names)
        for text, target in itertools.chain(*kinds):
            asked = len(set(content_terms(text)))
            if asked < _MIN_TERMS or asked > _MAX_TERMS:
                continue
            if len(set(content_terms(target))) < _MIN_TARGET_TERMS:
                continue
            posed.append(PseudoQuestion(row, text, target))
            break
        if len(posed) == MAX_QUESTIONS:
            break
    return posed


def _of_names(one: IndexedChunk, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        others = [part for part in (one.title, one.chunk.heading) if part and part != name]
        body = one.chunk.normalized_text.removeprefix(name)
        yield name.rpartition(" > ")[2], "\n".join((*others, body))


def _of_sentences(one: IndexedChunk, dice: random.Random) -> Iterator[tuple[str, str]]:
    text = one.chunk.normalized_text
    parts = [text[span.start : span.end] for span in split_sentences(text)]
    if len(parts) < 2:
        parts = [part for part in _CLAUSE.split(text) if part]
    dice.shuffle(parts)
    for part in parts[:4]:
        if len(parts) > 1:
            yield part, "\n".join((one.title, one.chunk.heading, text.replace(part, " ")))
    words = text.split(" ")
    if len(words) >= 2 * _MIN_TARGET_TERMS:  # one long sentence: its halves stand for two
        middle = len(words) // 2
        yield " ".join(words[:middle]), " ".join(words[middle:])


def judge(
    questions: Sequence[PseudoQuestion],
    dense: Callable[[int], tuple[Scores, float]],
    sparse: Callable[[int], tuple[Scores, float]],
    *,
    unknown: float,
) -> Calibration | None:
    """Weigh the arms by how they answer.

    Args:
        questions: as posed.
        dense: of a question's number, the scores of all chunks of the sample and that of the
            target, which stands in for its chunk.
        sparse: likewise.
        unknown: share of the questions' and targets' tokens that the encoder does not know.
    """
    if len(questions) < MIN_QUESTIONS:
        return None
    gains = np.zeros((len(questions), len(_GRID)))
    shared = 0.0
    size = 0
    for number, question in enumerate(questions):
        arms = []
        for arm in (dense, sparse):
            scores, target = arm(number)
            scores = scores.copy()
            scores[question.row] = min(scores[question.row], target)
            arms.append(scores)
        size = len(arms[0])
        tops = [set(np.argsort(-scores, kind="stable")[:10].tolist()) for scores in arms]
        shared += len(tops[0] & tops[1]) / max(1, min(10, size))
        meaning, words = (normalised(scores) for scores in arms)
        for column, weight in enumerate(_GRID):
            fused = weight * meaning + (1 - weight) * words
            gains[number, column] = _gain(fused, question.row)
    means = gains.mean(axis=0)
    weight = _choose(gains, _chance(size))
    if unknown > MAX_UNKNOWN:
        weight = 0.0
    column = _GRID.index(weight)
    return Calibration(
        ArmWeights(weight, round(1 - weight, 6)), len(questions), float(means[-1]),
        float(means[0]), float(means[column]), shared / len(questions), unknown,
    )  # fmt: skip


def _choose(gains: Scores, chance: float) -> float:
    means = gains.mean(axis=0)
    dense, sparse = (max(0.0, means[column] - chance) for column in (-1, 0))
    if dense < MIN_SKILL * sparse:
        return 0.0
    if sparse < MIN_SKILL * dense:
        return 1.0
    best = int(means.argmax())
    shortfall = gains[:, [best]] - gains
    error = shortfall.std(axis=0) / np.sqrt(len(gains))
    likely = [
        weight
        for weight, lost, se in zip(_GRID, shortfall.mean(axis=0), error, strict=True)
        if lost <= max(CONFIDENCE * se, NEGLIGIBLE)
    ]
    proportional = dense / (dense + sparse) if dense + sparse else 0.0
    return min(likely, key=lambda weight: (abs(weight - proportional), weight))


def _gain(scores: Scores, row: int) -> float:
    """1 / log2(1 + rank), ties in the middle."""
    own = scores[row]
    rank = 1 + int((scores > own).sum()) + (int((scores == own).sum()) - 1) / 2
    return float(1 / np.log2(1 + rank))


def _chance(size: int) -> float:
    """The mean gain of a ranking that knows nothing."""
    return float(np.mean(1 / np.log2(np.arange(size) + 2))) if size else 0.0


class SparseIndex:
    """Sparse vectors of a sample, with the IDF that engines use (BM25's, never negative)."""

    def __init__(self, vectors: Sequence[SparseVector]) -> None:
        self._size = len(vectors)
        self._postings: dict[int, list[tuple[int, float]]] = {}
        for row, vector in enumerate(vectors):
            for term, weight in zip(vector.indices, vector.values, strict=True):
                self._postings.setdefault(term, []).append((row, weight))

    def score(self, query: SparseVector, target: SparseVector) -> tuple[Scores, float]:
        """Scores of the sample, and of a target beside it."""
        scores = np.zeros(self._size)
        held = dict(zip(target.indices, target.values, strict=True))
        aside = 0.0
        for term, weight in zip(query.indices, query.values, strict=True):
            postings = self._postings.get(term, ())
            idf = np.log1p((self._size - len(postings) + 0.5) / (len(postings) + 0.5))
            for row, value in postings:
                scores[row] += weight * idf * value
            aside += weight * idf * held.get(term, 0.0)
        return scores, float(aside)
