"""Passages as a model reads them: the best that fit, neighbours together, fenced as data."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from services.infer.ports import Passage
from services.text.sentences import split_sentences

Size = Callable[[str], int]
"""Tokens of a text."""

_FENCES = re.compile(r"<(?=\s*/?\s*(?:passage|document|text|conversation)\b)", re.IGNORECASE)
_MARKER = re.compile(r"\[(\d{1,3})\]")
_MIN_OVERLAP = 12
"""Characters from which an end that is a beginning too counts as overlap."""
_MAX_OVERLAP = 4_000


def pack(passages: Sequence[Passage], room: int, size: Size) -> list[Passage]:
    """The best passages that fit into `room` tokens, in the order given. What overlaps a neighbour
    that is in already is left out; the last one may be shortened, at a sentence's end."""
    packed: list[Passage] = []
    for passage in passages:
        rest = _without_overlap(passage, packed)
        if passage.text and not rest.text.strip():
            continue
        cost = size(fenced(rest)) + 1  # and the line break after it
        if cost <= room:
            packed.append(rest)
            room -= cost
            continue
        overhead = size(fenced(replace(rest, text=""))) + 1
        start = head(rest.text, room - overhead, size)
        if start:
            packed.append(replace(rest, text=start))
        break
    return packed


def render_passages(packed: Sequence[Passage]) -> str:
    """The passages, the best one's document first; consecutive chunks of a document stand
    together in its order, each under its own marker."""
    return "\n".join(fenced(passage) for run in _runs(packed) for passage in run)


def fenced(passage: Passage) -> str:
    """A passage as data: a text cannot close its own fence, nor pass for a citation."""
    where = " > ".join(part for part in (passage.title, passage.heading) if part)
    quoted = escaped(where).replace('"', "'").replace("\n", " ")
    label = f' title="{quoted}"' if where else ""
    text = _MARKER.sub(r"(\1)", escaped(passage.text))
    return f'<passage n="[{passage.marker}]"{label}>\n{text}\n</passage>'


def escaped(text: str) -> str:
    """A text in which nothing opens or closes a fence."""
    return _FENCES.sub("<\u200b", text)


def head(text: str, room: int, size: Size) -> str:
    """The longest start of `text` of at most `room` tokens that ends with a sentence."""
    if room <= 0:
        return ""
    if size(text) <= room:
        return text
    spans = list(split_sentences(text))
    low, high = 0, len(spans)  # spans[:low] fits, spans[:high] does not
    while high - low > 1:
        middle = (low + high) // 2
        if size(text[: spans[middle - 1].end]) <= room:
            low = middle
        else:
            high = middle
    return text[: spans[low - 1].end] if low else ""


def _without_overlap(passage: Passage, packed: Sequence[Passage]) -> Passage:
    text = passage.text
    for other in packed:
        if _follows(other, passage):
            text = text[_overlap(other.text, text) :]
        elif _follows(passage, other):
            text = text[: len(text) - _overlap(text, other.text)]
    return passage if text is passage.text else replace(passage, text=text)


def _follows(first: Passage, second: Passage) -> bool:
    """Whether two passages are consecutive chunks of one document."""
    if not first.document_id or first.document_id != second.document_id:
        return False
    (content, index), (other, next_index) = _place(first), _place(second)
    return (
        index is not None
        and next_index is not None
        and (content, index + 1)
        == (
            other,
            next_index,
        )
    )


def _place(passage: Passage) -> tuple[str, int | None]:
    """A chunk's content and its number within, from its id."""
    content, _, index = passage.chunk_id.rpartition("-")
    return content, int(index) if index.isdecimal() else None


def _overlap(first: str, second: str) -> int:
    """How many characters at the end of `first` are the beginning of `second`."""
    most = min(len(first), len(second), _MAX_OVERLAP)
    start = second[:_MIN_OVERLAP]
    if most < _MIN_OVERLAP:
        return 0
    at = first.find(start, len(first) - most)
    while at >= 0:
        if second.startswith(first[at:]):
            return len(first) - at
        at = first.find(start, at + 1)
    return 0


def _runs(packed: Sequence[Passage]) -> list[list[Passage]]:
    runs: list[list[Passage]] = []
    for passage in packed:
        after = next((run for run in runs if _follows(run[-1], passage)), None)
        before = next((run for run in runs if _follows(passage, run[0])), None)
        if after is not None and before is not None:
            after.extend((passage, *before))
            runs.remove(before)
        elif after is not None:
            after.append(passage)
        elif before is not None:
            before.insert(0, passage)
        else:
            runs.append([passage])
    return runs
