"""Plain text: paragraphs between blank lines."""

import re

from services.preprocess.decoding import charset_of, decode
from services.preprocess.documents import Block, Extraction, Source
from services.preprocess.refusals import unreadable

_BLANK = re.compile(r"(?:\r\n?|\n)[^\S\r\n]*(?:\r\n?|\n)\s*")


class PlainParser:
    """The original text is the decoded file."""

    def parse(self, source: Source) -> Extraction:
        decoded = decode(source.data, declared=charset_of(source.content_type))
        if decoded.is_binary:
            raise unreadable(source.filename, "its content is not text")
        return Extraction(decoded.text, tuple(paragraphs(decoded.text)), warnings=decoded.warnings)


def paragraphs(text: str) -> list[Block]:
    """The paragraphs of a text, without white space at their ends."""
    blocks: list[Block] = []
    start = 0
    for end, following in [(m.start(), m.end()) for m in _BLANK.finditer(text)] + [
        (len(text), len(text))
    ]:
        piece = text[start:end]
        left = len(piece) - len(piece.lstrip())
        right = len(piece.rstrip())
        if right > left:
            blocks.append(Block(start + left, start + right))
        start = following
    return blocks
