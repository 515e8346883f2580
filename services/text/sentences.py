"""Sentence boundaries in Japanese and English, by rule."""

import re
from dataclasses import dataclass

# Ends of sentences: Japanese ones always, Western ones before white space or the end. Closing
# quotes and brackets belong to the sentence they end.
_CLOSERS = "」』）】〕〉》\"'”’)]"
_END = re.compile(
    rf"(?P<ja>[。！？｡]+[{re.escape(_CLOSERS)}]*)"
    rf"|(?P<en>[.!?…]+[{re.escape(_CLOSERS)}]*)(?=\s|$|[\u3040-\u30ff\u4e00-\u9fff])"
    r"|(?P<break>\n[^\S\n]*(?:\n|(?=[-*+•・#>|]|\d{1,3}[.)]\s))|\n(?=[^\S\n]{0,3}\S))"
)
_OPENERS = {"「": "」", "『": "』", "（": "）", "【": "】", "(": ")"}
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[\"'“])(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Inc|Ltd|Co|Corp|vs|etc|e\.g|i\.e|cf|al"
    r"|Fig|Figs|Eq|Eqs|No|Nos|Vol|pp|p|Sec|Ch|approx|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov"
    r"|Dec|U\.S|U\.K|[A-Z]\.[A-Z])\.$"
)
_LIST_NUMBER = re.compile(r"(?:^|\n)\s*\d{1,3}\.$")
_LOWER_NEXT = re.compile(r"\s+[a-z]")
# A hanging line break ends a sentence unless the line was merely wrapped: it neither ends with a
# terminator nor is it short, and the next line goes on in lower case or in Japanese script.
_WRAPPED_NEXT = re.compile(r"\n[^\S\n]*[a-z\u3041-\u30ff\u4e00-\u9fff、，,;)」]")
# A line that ends so goes on, however short it is.
_RUNS_ON = ("、", "，", ",")
_PLAIN_NEXT = re.compile(r"\n[^\S\n]*[^\s\d*+•・#>|-]")
# Columns; kana and kanji take two.
_SHORT_LINE = 32
# Brackets that are never closed must not swallow the rest of the text.
_MAX_BRACKETED = 400


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of code points, ``text[start:end]``, without white space at its ends."""

    start: int
    end: int


def split_sentences(text: str) -> list[Span]:
    """Return the sentences of ``text`` in order, as spans into it.

    Every character that is not white space lies in exactly one span. Japanese sentences end at
    。！？ outside of brackets, English ones at ``.!?`` before white space unless an abbreviation,
    an initial or a list number carries the point; headings, list items and paragraphs end at
    their line break. Linear in the length of the text. Never raises.
    """
    spans: list[Span] = []
    start = 0
    brackets = _bracketed(text)
    bracket = 0
    for match in _END.finditer(text):
        while bracket < len(brackets) and brackets[bracket].end < match.end():
            bracket += 1
        inside = bracket < len(brackets) and brackets[bracket].start < match.start()
        if match["break"] is None and inside:
            continue
        if match["en"] is not None and not _ends_sentence(text, start, match):
            continue
        if match["break"] is not None and _is_wrapped(text, start, match.start()):
            continue
        _append(spans, text, start, match.end())
        start = match.end()
    _append(spans, text, start, len(text))
    return spans


def _append(spans: list[Span], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        spans.append(Span(start, end))


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    if match["en"][0] != ".":
        return match["en"][0] != "…" or not _LOWER_NEXT.match(text, match.end())
    head = text[max(start, match.start() - 12) : match.start() + 1]
    if _ABBREVIATION.search(head) or _LIST_NUMBER.search(head):
        return False
    return not _LOWER_NEXT.match(text, match.end())


def _is_wrapped(text: str, start: int, line_break: int) -> bool:
    # The line's own start: a sentence that begins late in a line can be wrapped at its end.
    back = max(0, start - _SHORT_LINE)
    line_start = text.rfind("\n", back, line_break) + 1 or back
    line = text[line_start:line_break].rstrip()
    if line.endswith(_RUNS_ON):
        return _PLAIN_NEXT.match(text, line_break) is not None
    width = len(line) if line.isascii() else sum(2 if char > "\u2e7f" else 1 for char in line[:48])
    long_line = width >= _SHORT_LINE
    return long_line and _WRAPPED_NEXT.match(text, line_break) is not None


def _bracketed(text: str) -> list[Span]:
    """Outermost closed brackets of sensible length; a 。 inside of one ends no sentence."""
    spans: list[Span] = []
    stack: list[tuple[str, int]] = []
    for match in re.finditer(r"[「『（【()】）』」]", text):
        char = match[0]
        if char in _OPENERS:
            stack.append((_OPENERS[char], match.start()))
            continue
        while stack and match.start() - stack[-1][1] > _MAX_BRACKETED:
            stack.pop()
        if stack and stack[-1][0] == char:
            _, opened = stack.pop()
            while spans and spans[-1].start > opened:
                spans.pop()
            spans.append(Span(opened, match.end()))
    return spans
