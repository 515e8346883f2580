"""Markdown (CommonMark with tables): the original text is the source itself."""

import re

from markdown_it import MarkdownIt
from markdown_it.token import Token

from services.preprocess.decoding import charset_of, decode
from services.preprocess.documents import (
    MAX_HEADING_CHARACTERS,
    Block,
    BlockKind,
    Extraction,
    Source,
)
from services.preprocess.refusals import unreadable

_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n|$)")
_FRONT_MATTER = re.compile(
    r"\A---[^\S\r\n]*\r?\n(.*?)\r?\n(?:---|\.\.\.)[^\S\r\n]*(?:\r?\n|\Z)", re.DOTALL
)
_FRONT_TITLE = re.compile(r"^title\s*:\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)
_TAG = re.compile(r"<!--.*?-->|<[^>]*>", re.DOTALL)
_KINDS: dict[str, BlockKind] = {
    "paragraph_open": "paragraph",
    "blockquote_open": "paragraph",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "table_open": "table",
    "fence": "code",
    "code_block": "code",
    "html_block": "paragraph",
}


class MarkdownParser:
    """Blocks are slices of the source, so quotes and citations show what the author wrote."""

    def __init__(self) -> None:
        self._markdown = MarkdownIt("commonmark").enable("table")

    def parse(self, source: Source) -> Extraction:
        decoded = decode(source.data, declared=charset_of(source.content_type))
        if decoded.is_binary:
            raise unreadable(source.filename, "its content is not text")
        text = decoded.text
        front = _FRONT_MATTER.match(text)
        body = front.end() if front else 0
        title = _FRONT_TITLE.search(front[1]) if front else None
        # Offset of each line, and past the last.
        lines = [match.start() for match in _LINE.finditer(text, body)]
        lines.append(len(text))
        blocks = [
            block
            for token, inline in _top_level(self._markdown.parse(text[body:]))
            if (block := _block(text, lines, token, inline)) is not None
        ]
        return Extraction(
            text,
            tuple(blocks),
            title[1].strip("\"'") if title else "",
            warnings=decoded.warnings,
        )


def _top_level(tokens: list[Token]) -> list[tuple[Token, Token | None]]:
    """The outermost blocks, each with the inline token of a heading."""
    return [
        (token, tokens[index + 1] if token.type == "heading_open" else None)
        for index, token in enumerate(tokens)
        if token.level == 0 and token.nesting >= 0 and token.map
    ]


def _block(text: str, lines: list[int], token: Token, inline: Token | None) -> Block | None:
    first, past = token.map or (0, 0)
    start = lines[first]
    end = lines[min(past, len(lines) - 1)]
    piece = text[start:end]
    start, end = start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
    if start >= end:
        return None
    if inline is not None:
        label = " ".join(_plain(inline).split())
        if not label:
            return None
        if len(label) <= MAX_HEADING_CHARACTERS:
            return Block(start, end, "heading", int(token.tag[1:]), label)
        return Block(start, end)
    kind = _KINDS.get(token.type)
    if kind is None:  # a rule
        return None
    if token.type == "html_block" and not _TAG.sub("", piece).strip():
        return None  # comments and pure layout say nothing to a reader
    return Block(start, end, kind)


def _plain(inline: Token) -> str:
    parts: list[str] = []
    for child in inline.children or ():
        if child.type in ("text", "code_inline"):
            parts.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
        elif child.type == "image":
            parts.append(child.content)
    return "".join(parts)
