"""Joining lines that a layout had broken."""

import re

# Scripts written without spaces: a line break between two of these was never a space.
_UNSPACED = re.compile(
    r"[\u3000-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef]"
)


def separator(before: str, after: str) -> str:
    """What a broken line's break stood for: nothing between two characters of Japanese, else a
    space."""
    if before and after and _UNSPACED.match(before[-1]) and _UNSPACED.match(after[0]):
        return ""
    return " "


def join_lines(lines: list[str]) -> str:
    """One paragraph from its lines. A hyphen at a line's end joins a broken word."""
    text = ""
    for line in lines:
        piece = line.strip()
        if not piece:
            continue
        if not text:
            text = piece
        elif text[-1] in "\u00ad\x02":
            text = text[:-1] + piece
        else:
            text += separator(text, piece) + piece
    return text
