"""Word documents by kreuzberg (Rust), from parts that `archives` has checked."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kreuzberg import ConcurrencyConfig, ExtractionConfig, KreuzbergError, extract_bytes_sync

from services.preprocess.archives import ArchiveLimits, checked_parts
from services.preprocess.documents import Extraction, Layout, Source
from services.preprocess.refusals import unreadable

_MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
# The parts with text and what they need; pictures, fonts and embedded files stay outside.
_PARTS = re.compile(
    r"\[Content_Types\]\.xml|_rels/\.rels|docProps/(?:core|app)\.xml"
    r"|word/[A-Za-z0-9_-]+\.xml|word/_rels/[A-Za-z0-9_-]+\.xml\.rels"
)
_MARGINS = ("header", "footer")


class DocxParser:
    """Headings by style, lists, tables and footnotes; page numbers exist only in layout."""

    def __init__(self, limits: ArchiveLimits | None = None) -> None:
        self._limits = limits or ArchiveLimits()
        self._config = ExtractionConfig(
            use_cache=False,
            enable_quality_processing=False,
            include_document_structure=True,
            concurrency=ConcurrencyConfig(max_threads=1),
        )

    def parse(self, source: Source) -> Extraction:
        parts = checked_parts(source.data, source.filename, _PARTS, self._limits)
        try:
            result = extract_bytes_sync(parts, _MEDIA_TYPE, config=self._config)
        except KreuzbergError:
            raise unreadable(source.filename, "the Word document inside is damaged") from None
        structure: Mapping[str, Any] = result.document or {}
        layout = Layout()
        _lay_out(structure.get("nodes", ()), layout)
        title = str((result.metadata or {}).get("title") or "").strip()
        return layout.extraction(title=title)


def _lay_out(nodes: Sequence[Mapping[str, Any]], layout: Layout) -> None:
    items: list[str] = []
    numbered: dict[int, int] = {}

    def end_list() -> None:
        layout.add("\n".join(items), "list")
        items.clear()

    for node in nodes:
        content: Mapping[str, Any] = node["content"]
        kind = content["node_type"]
        if node.get("content_layer") in _MARGINS or kind == "group":
            continue
        if kind == "list":
            continue
        if kind == "list_item":
            items.append(_item(nodes, node, numbered) + str(content.get("text", "")).strip())
            continue
        end_list()
        if kind == "table":
            layout.add(_table(content["grid"]), "table")
        elif kind == "heading":
            layout.add(str(content["text"]), "heading", level=int(content["level"]))
        elif kind == "code":
            layout.add(str(content.get("text", "")), "code")
        else:
            layout.add(str(content.get("text") or ""))
    end_list()


def _item(
    nodes: Sequence[Mapping[str, Any]], node: Mapping[str, Any], numbered: dict[int, int]
) -> str:
    """The bullet or number that opens a list item."""
    parent = node.get("parent")
    if parent is None or not nodes[parent]["content"].get("ordered"):
        return "- "
    numbered[parent] = numbered.get(parent, 0) + 1
    return f"{numbered[parent]}. "


def _table(grid: Mapping[str, Any]) -> str:
    """A table as lines of cells with bars between them."""
    rows: list[list[str]] = [[""] * int(grid["cols"]) for _ in range(int(grid["rows"]))]
    for cell in grid["cells"]:
        rows[cell["row"]][cell["col"]] = " ".join(str(cell["content"]).split())
    return "\n".join(" | ".join(row) for row in rows if any(row))
