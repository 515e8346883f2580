"""Cutting a document into chunks that fit an encoder. Pure; linear in the text's length.

A chunk is a slice of the original text that lies under one heading and on one page. Blocks stay
whole where they fit, sentences (or lines of lists, tables and listings) where blocks do not, and
only a single sentence over the budget is cut inside. Sizes are measured on normalised text.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from services.preprocess.documents import Block, Chunk, Chunking, Extraction
from services.preprocess.ports import TokenCounter
from services.text.language import detect_language
from services.text.normalize import normalize
from services.text.sentences import split_sentences

HEADING_SEPARATOR = " > "
# A tokenizer may make one token of a word of any length; a chunk must still have an end.
_CHARACTERS_PER_TOKEN = 20
# Good places to cut inside a sentence, searched this share of a piece back.
_SOFT_BREAKS = " \t\n\u3000、，,;；:：・/)）」』]】"
_SOFT_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Unit:
    """A sentence, a line, or a piece of one that was too long."""

    start: int
    end: int
    weight: int
    """What it takes of the budget: its tokens, or more for very long words."""
    whole: bool = True
    ends_block: bool = False


@dataclass(frozen=True, slots=True)
class _Section:
    """Neighbouring blocks under one heading on one page."""

    path: tuple[str, ...]
    page: int | None
    blocks: list[Block]


@dataclass(frozen=True, slots=True)
class _Draft:
    heading: str
    page: int | None
    units: list[Unit]
    budget: int


def cut(extraction: Extraction, chunking: Chunking, counter: TokenCounter) -> list[Chunk]:
    """The chunks of a document in reading order.

    Every visible character of every block lies in a chunk's text or, for headings, in a chunk's
    heading. A chunk's tokens stay within ``chunking.max_tokens`` unless it is a single character.
    """
    text = extraction.text
    sections = list(_sections(extraction.blocks))
    headings = _headings([section.path for section in sections], chunking.max_tokens, counter)
    units = _weighed(text, [_spans(text, section.blocks) for section in sections], counter)
    drafts: list[_Draft] = []
    for section, sentences in zip(sections, units, strict=True):
        heading, heading_tokens = headings[section.path]
        budget = chunking.max_tokens - heading_tokens
        overlap = min(chunking.overlap_tokens, budget // 2)
        fitting = _shortened(text, sentences, budget, counter)
        for packed in _packed(text, fitting, budget, overlap):
            drafts.append(_Draft(heading, section.page, packed, budget))
    return _finished(text, drafts, chunking.max_tokens, counter)


def _sections(blocks: Sequence[Block]) -> Iterator[_Section]:
    stack: list[tuple[int, str]] = []
    section: _Section | None = None
    for index, block in enumerate(blocks):
        if block.kind == "heading":
            while stack and stack[-1][0] >= block.level:
                stack.pop()
            path = tuple(label for _, label in stack)
            following = blocks[index + 1] if index + 1 < len(blocks) else None
            stack.append((block.level, block.label))
            carried = following is not None and (
                following.kind != "heading" or following.level > block.level
            )
            if carried:
                continue
            # A heading over nothing is in nobody's path: it is text of its own.
        else:
            path = tuple(label for _, label in stack)
        if section is None or section.path != path or section.page != block.page:
            if section is not None:
                yield section
            section = _Section(path, block.page, [])
        section.blocks.append(block)
    if section is not None:
        yield section


def _headings(
    paths: Sequence[tuple[str, ...]], max_tokens: int, counter: TokenCounter
) -> dict[tuple[str, ...], tuple[str, int]]:
    """Path -> (heading, its tokens). A heading takes at most half the budget: outer levels go
    first, then the end of the innermost."""
    limit = max_tokens // 2
    found: dict[tuple[str, ...], tuple[str, int]] = {(): ("", 0)}
    for path in dict.fromkeys(paths):
        kept = path
        while kept:
            heading = HEADING_SEPARATOR.join(kept)
            tokens = counter.count([normalize(heading)])[0]
            if tokens <= limit:
                found[path] = (heading, tokens)
                break
            if len(kept) > 1:
                kept = kept[1:]
            else:
                kept = (kept[0][: len(kept[0]) * 3 // 4].rstrip(),) if len(kept[0]) > 1 else ()
        else:
            found[path] = ("", 0)
    return found


def _spans(text: str, blocks: Sequence[Block]) -> list[Unit]:
    """The units of a section, not weighed yet."""
    units: list[Unit] = []
    for block in blocks:
        piece = text[block.start : block.end]
        spans = (
            [(span.start, span.end) for span in split_sentences(piece)]
            if block.kind in ("paragraph", "heading")
            else list(_lines(piece))
        )
        for index, (start, end) in enumerate(spans):
            units.append(
                Unit(
                    block.start + start,
                    block.start + end,
                    0,
                    ends_block=index == len(spans) - 1,
                )
            )
    return units


def _lines(piece: str) -> Iterator[tuple[int, int]]:
    start = 0
    for line in piece.splitlines(keepends=True):
        visible = line.strip()
        if visible:
            left = start + line.index(visible[0])
            yield left, left + len(visible)
        start += len(line)


def _weighed(text: str, sections: Sequence[list[Unit]], counter: TokenCounter) -> list[list[Unit]]:
    """The same units with their weights, counted in one batch."""
    flat = [unit for units in sections for unit in units]
    weights = _weights(text, flat, counter)
    weighed = iter(
        Unit(unit.start, unit.end, weight, unit.whole, unit.ends_block)
        for unit, weight in zip(flat, weights, strict=True)
    )
    return [[next(weighed) for _ in units] for units in sections]


def _weights(text: str, units: Sequence[Unit], counter: TokenCounter) -> list[int]:
    normalized = [normalize(text[unit.start : unit.end]) for unit in units]
    return [
        max(tokens, -(-len(piece) // _CHARACTERS_PER_TOKEN))
        for tokens, piece in zip(counter.count(normalized), normalized, strict=True)
    ]


def _shortened(text: str, units: Sequence[Unit], budget: int, counter: TokenCounter) -> list[Unit]:
    """Units within the budget: longer ones are cut into even pieces, and again if need be."""
    done: list[Unit] = []
    todo = list(units)
    while any(unit.weight > budget and unit.end - unit.start > 1 for unit in todo):
        done = []
        for unit in todo:
            if unit.weight <= budget or unit.end - unit.start <= 1:
                done.append(unit)
                continue
            pieces = _pieces(text, unit, -(-unit.weight // budget) + 1)
            weights = _weights(text, pieces, counter)
            done.extend(
                Unit(piece.start, piece.end, weight, False, piece.ends_block)
                for piece, weight in zip(pieces, weights, strict=True)
            )
        todo = done
    return todo


def _pieces(text: str, unit: Unit, count: int) -> list[Unit]:
    """Cut a unit into about ``count`` pieces, at soft places where there are any."""
    step = max(1, -(-(unit.end - unit.start) // count))
    edges = [unit.start]
    while unit.end - edges[-1] > step:
        edges.append(_soft_edge(text, edges[-1], edges[-1] + step, unit.end))
    edges.append(unit.end)
    pieces = [
        Unit(start, end, 0, False)
        for start, end in (_stripped(text, *pair) for pair in pairwise(edges))
        if start < end
    ]
    if pieces and unit.ends_block:
        last = pieces[-1]
        pieces[-1] = Unit(last.start, last.end, 0, False, True)
    return pieces


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """The same stretch without white space at its ends."""
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


def _soft_edge(text: str, start: int, edge: int, end: int) -> int:
    """A place to cut at or before ``edge``: after a soft break, never inside a character."""
    lowest = max(start + 1, edge - int((edge - start) * _SOFT_SHARE))
    for place in range(edge, lowest - 1, -1):
        if text[place - 1] in _SOFT_BREAKS:
            return place
    while edge < end and unicodedata.combining(text[edge]):
        edge += 1
    return edge


def _packed(text: str, units: Sequence[Unit], budget: int, overlap: int) -> Iterator[list[Unit]]:
    """Units gathered into chunks: whole blocks where they fit, else units in order."""
    current: list[Unit] = []
    weight = 0
    for block in _by_block(units):
        block_weight = sum(unit.weight for unit in block)
        gap = bool(current) and bool(text[current[-1].end : block[0].start].strip())
        # A block that fits a chunk of its own is not begun in one where it does not fit.
        if current and (gap or (weight + block_weight > budget >= block_weight)):
            yield current
            current = [] if gap else _repeated(current, overlap, budget - block_weight)
            weight = sum(unit.weight for unit in current)
        for unit in block:
            if current and weight + unit.weight > budget:
                yield current
                current = _repeated(current, overlap, budget - unit.weight)
                weight = sum(repeated.weight for repeated in current)
            current.append(unit)
            weight += unit.weight
    if current:
        yield current


def _by_block(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    block: list[Unit] = []
    for unit in units:
        block.append(unit)
        if unit.ends_block:
            yield block
            block = []
    if block:
        yield block


def _repeated(units: Sequence[Unit], overlap: int, room: int) -> list[Unit]:
    """The whole sentences from the end of a chunk that its successor repeats."""
    repeated: list[Unit] = []
    left = min(overlap, room)
    for unit in reversed(units):
        last = len(repeated) + 1 == len(units)  # a chunk repeated whole would say nothing new
        if not unit.whole or unit.weight > left or left <= 0 or last:
            break
        repeated.insert(0, unit)
        left -= unit.weight
    return repeated


def _finished(
    text: str, drafts: Sequence[_Draft], max_tokens: int, counter: TokenCounter
) -> list[Chunk]:
    """Chunks with true counts. A draft that joined into more tokens than its units had is halved
    until it fits: tokenizers need not be additive."""
    fitting: list[tuple[_Draft, str, int]] = []
    todo = list(drafts)
    while todo:
        normalized = [_normalized(text, draft) for draft in todo]
        counts = counter.count(
            [
                f"{normalize(draft.heading)}\n{piece}" if draft.heading else piece
                for draft, piece in zip(todo, normalized, strict=True)
            ]
        )
        halves: list[_Draft] = []
        for draft, piece, tokens in zip(todo, normalized, counts, strict=True):
            if tokens <= max_tokens:
                fitting.append((draft, piece, tokens))
                continue
            split = _halved(text, draft, counter)
            if split:
                halves.extend(split)
            else:
                fitting.append((draft, piece, tokens))
        todo = halves
    fitting.sort(key=lambda item: (item[0].units[0].start, item[0].units[-1].end))
    return [
        Chunk(
            index=index,
            text=text[draft.units[0].start : draft.units[-1].end],
            normalized_text=piece,
            heading=draft.heading,
            page=draft.page,
            language=detect_language(piece),
            tokens=tokens,
            start=draft.units[0].start,
            end=draft.units[-1].end,
        )
        for index, (draft, piece, tokens) in enumerate(
            item
            for item in fitting
            if item[1]  # nothing visible is left of controls alone
        )
    ]


def _normalized(text: str, draft: _Draft) -> str:
    return normalize(text[draft.units[0].start : draft.units[-1].end])


def _halved(text: str, draft: _Draft, counter: TokenCounter) -> list[_Draft]:
    units = draft.units
    if len(units) == 1:
        if units[0].end - units[0].start <= 1:
            return []
        units = _pieces(text, units[0], 2)
        if len(units) < 2:
            return []
    middle = len(units) // 2
    return [
        _Draft(draft.heading, draft.page, list(half), draft.budget)
        for half in (units[:middle], units[middle:])
    ]
