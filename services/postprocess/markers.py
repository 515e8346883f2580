"""Markers in an answer: found, brought into the form ``[n]``, and given to their sentences."""

import re
from collections.abc import Container
from dataclasses import dataclass

from services.text.sentences import split_sentences

# [1]  [1, 2]  [1-3]  【1】  ［１］  [Passage 1]  [出典1]: what models write for a citation. A
# number of four digits is a year, and a link or a footnote definition is no marker.
_NUMBERS = r"\d{1,3}(?:\s*[,、，;；‐–~〜-]\s*\d{1,3})*"
_LABEL = r"(?:(?:passages?|sources?|docs?|documents?|資料|文書|出典|文献)\s*[:：]?\s*)?"
_MARKER = re.compile(
    rf"(?P<space>[^\S\n]*)(?:\[\s*\^?{_LABEL}(?P<a>{_NUMBERS})\s*\](?![(:])"
    rf"|[［【〔]\s*{_LABEL}(?P<b>{_NUMBERS})\s*[］】〕])",
    re.IGNORECASE,
)
_RANGE = re.compile(r"(\d+)\s*[‐–~〜-]\s*(\d+)")
_NUMBER = re.compile(r"\d+")
_CODE = re.compile(
    r"(?P<fence>^[^\S\n]{0,3}(?P<tick>`{3,}|~{3,})[^\n]*(?:\n|\Z)(?:.*?^[^\S\n]{0,3}(?P=tick)[`~]*[^\S\n]*$"
    r"|.*\Z))|(?P<inline>(?P<ticks>`+)(?!`)[^`\n]+?(?<!`)(?P=ticks)(?!`))",
    re.MULTILINE | re.DOTALL,
)
_CODE_FILLER = "\ufffc"  # no white space: a marker takes the space before it along
_LINE_START = re.compile(r"\n\s*(?:[-*+•]\s*|\d{1,3}[.)]\s*|>\s*)*$")


@dataclass(frozen=True, slots=True)
class Marked:
    """A stretch of an answer without markers, with those that belong to it."""

    text: str
    markers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Resolved:
    """An answer with its markers resolved."""

    text: str
    """With markers in the form ``[1][2]``, the unknown ones removed."""
    sentences: tuple[Marked, ...]
    order: tuple[int, ...]
    """The cited markers in the order of their first mention."""


def resolve(text: str, known: Container[int]) -> Resolved:
    """Find the markers of `text`; those not in `known` vanish. Linear; never raises."""
    shown: list[str] = []
    bare: list[str] = []
    length = 0  # of the bare text so far
    placed: list[tuple[int, tuple[int, ...]]] = []
    end = 0
    for start, stop, numbers in _markers(text):
        kept = tuple(dict.fromkeys(n for n in numbers if n in known))
        between = text[end:start]
        shown.append(between)
        bare.append(between)
        length += len(between)
        if kept:
            space = re.match(r"[^\S\n]*", text[start:stop])
            shown.append((space[0] if space else "") + "".join(f"[{n}]" for n in kept))
            placed.append((length, kept))
        end = stop
    shown.append(text[end:])
    bare.append(text[end:])
    order = tuple(dict.fromkeys(n for _, numbers in placed for n in numbers))
    return Resolved("".join(shown), _sentences("".join(bare), placed), order)


def without_code(text: str, filler: str = " ") -> str:
    """`text` with each character of its code replaced by `filler`, line breaks kept."""
    return _CODE.sub(lambda match: re.sub(r"[^\n]", filler, match[0]), text)


def _markers(text: str) -> list[tuple[int, int, list[int]]]:
    found: list[tuple[int, int, list[int]]] = []
    for match in _MARKER.finditer(without_code(text, _CODE_FILLER)):
        numbers = _numbers(match["a"] or match["b"])
        before = text[match.start() - 1] if match.start() else ""
        # `items[0]` outside of code is an index, not a citation: passages count from 1.
        if 0 in numbers and not match["space"] and (before.isascii() and before.isalnum()):
            continue
        found.append((match.start(), match.end(), numbers))
    return found


def _numbers(listed: str) -> list[int]:
    numbers: list[int] = []
    for part in re.split(r"[,、，;；]", listed):
        span = _RANGE.search(part)
        if span and int(span[1]) <= int(span[2]) <= int(span[1]) + 20:
            numbers.extend(range(int(span[1]), int(span[2]) + 1))
        else:
            numbers.extend(int(number) for number in _NUMBER.findall(part))
    return numbers


def _sentences(bare: str, placed: list[tuple[int, tuple[int, ...]]]) -> tuple[Marked, ...]:
    """A marker belongs to the sentence that it follows; at the start of a line, to the next."""
    # Code says nothing that a passage could support.
    spans = split_sentences(without_code(bare))
    markers: list[list[int]] = [[] for _ in spans]
    at = 0
    for position, numbers in placed:
        while at + 1 < len(spans) and spans[at + 1].start < position:
            at += 1
        owner = at
        gap = bare[spans[at].end : position] if at + 1 < len(spans) else ""
        if _LINE_START.search(gap):
            owner = at + 1
        if spans:
            markers[owner].extend(n for n in numbers if n not in markers[owner])
    return tuple(
        Marked(bare[span.start : span.end], tuple(found))
        for span, found in zip(spans, markers, strict=True)
    )
