"""Sentences as candidates: clean of layout, of sensible length, with their terms."""

import re
from collections.abc import Iterator

from services.text.sentences import split_sentences

MAX_SENTENCE = 400
"""Characters; a longer stretch without an end, such as a table or minified text, is cut."""
_WIDE = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef、。「」（）]"
_WRAP_WIDE = re.compile(rf"(?<={_WIDE})[^\S\n]*\n\s*(?={_WIDE})")
_SPACE = re.compile(r"\s+")
_BULLET = re.compile(r"^(?:[-*+•・▪◦>]\s+|#{1,6}\s+|\d{1,3}[.)]\s+)+")
_HEADING = re.compile(r"^#{1,6}\s")
_CLAUSE = re.compile(r"[、，,;；|\t\n]\s*|\s(?=\S)")


_END = re.compile(r"[.!?。！？…:：;；][\s\"'”’」』）)\]*_`]*$")
_MARKER = re.compile(r"[\[【［](\s*\d{1,3}(?:\s*[,、，-]\s*\d{1,3})*\s*)[\]】］]")


def sentences_of(text: str) -> Iterator[str]:
    """The sentences of `text`, verbatim but for line wraps and bullets; headings are left out."""
    for span in split_sentences(text):
        raw = text[span.start : span.end]
        if _HEADING.match(raw):
            continue
        for piece in _pieces(raw):
            sentence = unwrap(piece)
            if sentence:
                yield sentence


def is_fragment(sentence: str) -> bool:
    """Whether it is a heading, a table's row or another line that is no sentence."""
    return not _END.search(sentence)


def without_markers(sentence: str) -> str:
    """A text's own ``[1]`` must not read as a citation of ours."""
    return _MARKER.sub(r"(\1)", sentence)


def unwrap(text: str) -> str:
    """One line: wraps inside Japanese vanish, others become a space; a bullet goes."""
    text = _WRAP_WIDE.sub("", text.strip())
    return _BULLET.sub("", _SPACE.sub(" ", text)).strip()


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > MAX_SENTENCE:
        cut = start + MAX_SENTENCE
        for match in _CLAUSE.finditer(text, start + MAX_SENTENCE // 2, start + MAX_SENTENCE):
            cut = match.end()
        yield text[start:cut]
        start = cut
    yield text[start:]
