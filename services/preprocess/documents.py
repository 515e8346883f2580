"""What a document is on its way from bytes to chunks. Plain data, shared by every module here.

Offsets are Unicode code points of the document's *original text*: the decoded file itself where
the format is text (md, txt), else the text that the parser laid out, block by block.
"""

from dataclasses import dataclass, field
from typing import Literal

BlockKind = Literal["heading", "paragraph", "list", "table", "code"]

BLOCK_SEPARATOR = "\n\n"
"""Stands between blocks in a text that a parser lays out."""

MAX_HEADING_CHARACTERS = 200
"""A longer "heading" is a paragraph in large type."""


@dataclass(frozen=True, slots=True)
class Source:
    """A document as it was sent."""

    filename: str
    content_type: str
    """The declared media type; may be empty."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """A heading, a paragraph, a list, a table or a listing."""

    start: int
    end: int
    kind: BlockKind = "paragraph"
    level: int = 0
    """Of a heading: 1 is the outermost. 0 for everything else."""
    label: str = ""
    """Of a heading: its text without markup."""
    page: int | None = None
    """From 1; None in formats without pages."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """What a parser found."""

    text: str
    blocks: tuple[Block, ...]
    """In reading order, not overlapping."""
    title: str = ""
    """The title in the document's own metadata; may be empty."""
    pages: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunking:
    """How to cut. Sizes are in tokens of the named tokenizer, or estimated without one."""

    tokenizer_id: str = ""
    """SHA-256 hex of the tokenizer's file; empty for an estimate."""
    max_tokens: int = 200
    overlap_tokens: int = 0
    languages: tuple[str, ...] = ()
    """The languages that the tokenizer measures; others are measured in words. Empty: all."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document. The fields are those of the wire's `Chunk`."""

    index: int
    text: str
    normalized_text: str
    heading: str
    page: int | None
    language: str
    tokens: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a parsed document."""

    format: str
    title: str
    language: str
    pages: int
    characters: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Processed:
    """A document, parsed and cut."""

    facts: Facts
    chunks: tuple[Chunk, ...]
    parse_seconds: float = 0.0
    chunk_seconds: float = 0.0


@dataclass(slots=True)
class Layout:
    """Lays blocks out in one text, for parsers whose format is not text itself."""

    parts: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    length: int = 0

    def add(
        self, text: str, kind: BlockKind = "paragraph", *, level: int = 0, page: int | None = None
    ) -> None:
        """Append a block; one without visible text is dropped."""
        text = text.strip()
        if not text:
            return
        if kind == "heading" and len(text) > MAX_HEADING_CHARACTERS:
            kind, level = "paragraph", 0
        if self.parts:
            self.parts.append(BLOCK_SEPARATOR)
            self.length += len(BLOCK_SEPARATOR)
        label = " ".join(text.split()) if kind == "heading" else ""
        self.blocks.append(Block(self.length, self.length + len(text), kind, level, label, page))
        self.parts.append(text)
        self.length += len(text)

    def extraction(
        self, *, title: str = "", pages: int = 0, warnings: tuple[str, ...] = ()
    ) -> Extraction:
        return Extraction("".join(self.parts), tuple(self.blocks), title, pages, warnings)
