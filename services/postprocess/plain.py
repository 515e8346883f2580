"""Markdown without its marks."""

import re

_FENCE = re.compile(r"^[^\S\n]{0,3}(?:`{3,}|~{3,})[^\n]*\n?", re.MULTILINE)
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^[^\S\n]{0,3}#{1,6}[^\S\n]+(.*?)[^\S\n]*#*$", re.MULTILINE), r"\1"),
    (re.compile(r"^[^\S\n]{0,3}>[^\S\n]?", re.MULTILINE), ""),
    (re.compile(r"^[^\S\n]{0,3}(?:[-*_][^\S\n]*){3,}$", re.MULTILINE), ""),
    (re.compile(r"^([^\S\n]*)[*+][^\S\n]+", re.MULTILINE), r"\1- "),
    (re.compile(r"!\[([^\]\n]*)\]\([^)\n]*\)"), r"\1"),
    (re.compile(r"\[([^\]\n]+)\]\(([^)\s]+)[^)\n]*\)"), r"\1 (\2)"),
    (re.compile(r"(\*\*|__)(?=\S)([^\n]+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<!\w)_(?=\S)([^_\n]+?)(?<=\S)_(?!\w)"), r"\1"),
    (re.compile(r"~~(?=\S)([^~\n]+?)(?<=\S)~~"), r"\1"),
    (re.compile(r"(`+)(?!`)[^\S\n]?([^`\n]+?)[^\S\n]?(?<!`)\1(?!`)"), r"\2"),
    (re.compile(r"\\([\\`*_{}\[\]()#+\-.!>~|])"), r"\1"),
    (re.compile(r"\n{3,}"), "\n\n"),
)


def to_plain(text: str) -> str:
    """`text` without markdown's marks: emphasis, headings, quotes, links, code marks. List items
    keep their dash; what stands inside fences stays untouched. Never raises."""
    pieces: list[str] = []
    for i, piece in enumerate(_FENCE.split(text)):
        pieces.append(piece if i % 2 else _without_marks(piece))
    return "".join(pieces).strip()


def _without_marks(text: str) -> str:
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
