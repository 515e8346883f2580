"""Text to search in, made from a seed: as large as wanted, the same every time, never all at once.

Words. A vocabulary of 50,000: the English stop words, and words of syllables. A word's rank r gives
its frequency by the law of Zipf and Mandelbrot, 1 / (r + 2.7). Stop words are the most frequent
ones and make up about two words in five, as in English.

Topics. Every other word has a home topic. A document has a topic; of its content words about half
come from there (by Zipf within the topic), the others from the whole vocabulary. A chunk has 40 to
160 words, 80 on average, log-normally distributed, in sentences of 6 to 20; its document's title
has three words of the topic.

Meaning. A word's direction is its topic's centre and a part of its own, in 64 dimensions that are
turned into the encoder's. A text's vector is the sum of its words' directions, with the frequent
ones weighed down by a / (a + p) (Arora, Liang & Ma, "A Simple but Tough-to-Beat Baseline for
Sentence Embeddings", ICLR 2017). So vectors are clustered, and a question lies near the chunk that
it was made from; ten questions of one chunk differ.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services import text

_STOP_WORDS = Path(text.__path__[0]) / "stop_words_en.txt"
WORDS = 50_000
LATENT = 64
BLOCK = 2_000
"""Chunks that are made together."""
DOCUMENT_CHUNKS = 20
_SHIFT = 2.7
_STOP_SHARE = 0.42
_TOPIC_SHARE = 0.5
_SMOOTH = 1e-3
_MIN_WORDS, _MAX_WORDS, _MEDIAN_WORDS, _SIGMA = 40, 160, 76, 0.3
_CENTRE = 0.75
"""Length of a topic's part of a word's direction; the rest is its own."""
_ONSETS = "b br c ch d dr f fl g gr h j k l m n p pr r s st t tr v w z".split()
_NUCLEI = "a e i o u ai ea oo".split()
_CODAS = " n r l s t m ck nd".split(" ")

Words = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk to be."""

    number: int
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """Words of one chunk, with stop words between."""

    text: str
    chunk: int
    """The number of the chunk that it was made from."""


class Corpus:
    """Chunks and questions by number."""

    def __init__(self, seed: int, *, chunks: int, words: int = WORDS) -> None:
        self.seed = seed
        self.chunks = chunks
        self.topics = int(np.clip(chunks // 400, 16, 512))
        dice = np.random.default_rng([seed, 0])
        stop = sorted(set(_STOP_WORDS.read_text(encoding="utf-8").split()))
        dice.shuffle(stop)
        self.words: list[str] = [*stop, *_invent(words - len(stop), dice, set(stop))]
        self._array = np.array(self.words, dtype=object)
        self.stops = len(stop)
        weights = np.asarray(1.0 / (np.arange(words) + _SHIFT), np.float64)
        self._stop_cumulated = _cumulated(weights[: self.stops])
        self._content_cumulated = _cumulated(weights[self.stops :])
        self.home = dice.integers(0, self.topics, words).astype(np.int32)
        self._topic_words = [
            np.flatnonzero(self.home[self.stops :] == topic) + self.stops
            for topic in range(self.topics)
        ]
        self._topic_cumulated = [_cumulated(weights[words_]) for words_ in self._topic_words]
        content = weights[self.stops :] / weights[self.stops :].sum() * (1 - _STOP_SHARE)
        stops = weights[: self.stops] / weights[: self.stops].sum() * _STOP_SHARE
        self.frequency: NDArray[np.float64] = np.concatenate([stops, content])

    @cached_property
    def directions(self) -> NDArray[np.float32]:
        """Shape (words, LATENT): what a word adds to the vector of its text."""
        dice = np.random.default_rng([self.seed, 1])
        centres = _unit(dice.standard_normal((self.topics, LATENT)))
        own = _unit(dice.standard_normal((len(self.words), LATENT)))
        mixed = _CENTRE * centres[self.home] + (1 - _CENTRE**2) ** 0.5 * own
        weight = _SMOOTH / (_SMOOTH + self.frequency)
        found: NDArray[np.float32] = (mixed * weight[:, None]).astype(np.float32)
        return found

    def turned(self, dimensions: int) -> NDArray[np.float32]:
        """Shape (LATENT, dimensions), rows orthonormal: from meaning to an encoder's space."""
        dice = np.random.default_rng([self.seed, 2])
        square, _ = np.linalg.qr(dice.standard_normal((dimensions, LATENT)))
        turned: NDArray[np.float32] = square.T.astype(np.float32)
        return turned

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        """Chunks in order, from `start` to `stop`."""
        stop = self.chunks if stop is None else stop
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            for place, ids in enumerate(self._block(block)):
                number = block * BLOCK + place
                if start <= number < stop:
                    yield Piece(number, self.title(number), self._text(ids, number))

    def title(self, number: int) -> str:
        """That of the document which a chunk belongs to."""
        document = number // DOCUMENT_CHUNKS
        dice = np.random.default_rng([self.seed, 3, document])
        chosen = self._of_topic(self._topic(document), 3, dice)
        return " ".join(self.words[one] for one in chosen).capitalize()

    def questions(self, count: int) -> list[Question]:
        """Distinct questions, each of a random chunk; another count gives other ones."""
        dice = np.random.default_rng([self.seed, 4])
        chosen = dice.choice(self.chunks, size=min(2 * count, self.chunks), replace=False)
        if len(chosen) < 2 * count:  # a small corpus: several questions of a chunk
            chosen = dice.integers(0, self.chunks, 2 * count)
        found: dict[str, Question] = {}
        blocks: dict[int, list[Words]] = {}
        order = np.argsort(chosen, kind="stable")
        texts: dict[int, str] = {}
        for place in order:
            number = int(chosen[place])
            block = number // BLOCK
            if block not in blocks:
                blocks = {block: self._block(block)}
            texts[int(place)] = self._ask(blocks[block][number % BLOCK], int(place))
        for place in range(len(chosen)):
            found.setdefault(texts[place], Question(texts[place], int(chosen[place])))
            if len(found) == count:
                break
        return list(found.values())

    def _ask(self, ids: Words, place: int) -> str:
        dice = np.random.default_rng([self.seed, 5, place])
        content = np.unique(ids[ids >= self.stops])
        wanted = min(len(content), int(dice.integers(3, 7)))
        words = [self.words[one] for one in dice.choice(content, wanted, replace=False)]
        for place_ in sorted(dice.integers(0, len(words) + 1, 2), reverse=True):
            words.insert(int(place_), self.words[int(dice.integers(0, self.stops))])
        return " ".join(words)

    def _topic(self, document: int) -> int:
        return int(np.random.default_rng([self.seed, 6, document]).integers(0, self.topics))

    def _of_topic(self, topic: int, count: int, dice: np.random.Generator) -> Words:
        places = np.searchsorted(self._topic_cumulated[topic], dice.random(count))
        return self._topic_words[topic][places].astype(np.int32)

    def _block(self, block: int) -> list[Words]:
        """Word numbers of each chunk of a block."""
        dice = np.random.default_rng([self.seed, 7, block])
        lengths = np.clip(
            np.exp(dice.normal(np.log(_MEDIAN_WORDS), _SIGMA, BLOCK)), _MIN_WORDS, _MAX_WORDS
        ).astype(int)
        total = int(lengths.sum())
        content = np.searchsorted(self._content_cumulated, dice.random(total)) + self.stops
        kind = dice.random(total)
        of_topic = kind < (1 - _STOP_SHARE) * _TOPIC_SHARE
        ends = np.cumsum(lengths)
        firsts = ends - lengths
        for first in range(0, BLOCK, DOCUMENT_CHUNKS):
            topic = self._topic((block * BLOCK + first) // DOCUMENT_CHUNKS)
            span = slice(firsts[first], ends[min(first + DOCUMENT_CHUNKS, BLOCK) - 1])
            there = np.flatnonzero(of_topic[span])
            content[span][there] = self._of_topic(topic, len(there), dice)
        is_stop = kind >= 1 - _STOP_SHARE
        stops = np.searchsorted(self._stop_cumulated, dice.random(int(is_stop.sum())))
        content[is_stop] = stops
        return np.split(content.astype(np.int32), ends[:-1])

    def _text(self, ids: Words, number: int) -> str:
        words = self._array[ids].tolist()
        sentences = []
        place, step = 0, 6 + number % 7
        while place < len(words):
            end = min(len(words), place + step)
            if len(words) - end < 6:
                end = len(words)
            sentences.append(" ".join(words[place:end]).capitalize() + ".")
            place, step = end, 6 + (step * 5 + 3) % 15
        return " ".join(sentences)


def _invent(count: int, dice: np.random.Generator, taken: set[str]) -> list[str]:
    """Words of two or three syllables, each once."""
    words: dict[str, None] = {}
    while len(words) < count:
        syllables = int(dice.integers(2, 4))
        word = "".join(
            part[int(dice.integers(0, len(part)))]
            for part in (_ONSETS, _NUCLEI, _CODAS) * syllables
        )
        if word not in taken:
            words[word] = None
    return list(words)


def _cumulated(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    cumulated: NDArray[np.float64] = np.cumsum(weights / weights.sum())
    cumulated[-1] = 1.0
    return cumulated


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def vectors(
    directions: NDArray[np.float32], ids: Sequence[Words], turn: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Vectors of length 1 of texts, given as word numbers: shape (texts, dimensions)."""
    flat = np.concatenate([*ids]) if ids else np.zeros(0, np.int32)
    starts = np.concatenate([[0], np.cumsum([len(one) for one in ids])[:-1]]).astype(int)
    latent = np.add.reduceat(directions[flat], starts, axis=0)
    rows = latent @ turn
    found: NDArray[np.float32] = rows / np.maximum(
        np.linalg.norm(rows, axis=1, keepdims=True), 1e-9
    )
    return found
