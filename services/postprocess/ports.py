"""The plain data that passes through an answer's last step."""

from dataclasses import dataclass
from enum import Enum


class Format(Enum):
    """How the answer's text is returned."""

    MARKDOWN = "markdown"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that the model was shown; `marker` is its number, from 1."""

    marker: int
    text: str
    document_id: str = ""
    chunk_id: str = ""
    source: str = ""
    title: str = ""
    page: int | None = None
    heading: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer to finish; `semantic` has a row a sentence with a figure a passage, or is empty."""

    text: str
    passages: tuple[Passage, ...] = ()
    query: str = ""
    format: Format = Format.MARKDOWN
    unanswered: bool = False
    semantic: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Citation:
    """A cited passage with the words that carry the answer; `score` from 0 to 1."""

    passage: Passage
    quote: str
    score: float


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of an answer without its markers; `support` from 0 to 1."""

    text: str
    markers: tuple[int, ...]
    support: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer; `confidence` from 0 to 1."""

    text: str
    citations: tuple[Citation, ...]
    confidence: float
    sentences: tuple[Sentence, ...]
