"""HTML by selectolax (Lexbor): an HTML5 parser that reads whatever a browser reads."""

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from services.preprocess.decoding import charset_of, decode
from services.preprocess.documents import BlockKind, Extraction, Layout, Source
from services.preprocess.linebreaks import separator
from services.preprocess.refusals import unreadable

_SKIPPED = frozenset(
    "head script style noscript template svg math iframe object embed canvas audio video nav"
    " select datalist textarea button".split()
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = (
    frozenset(
        "address article aside blockquote body caption center dd details dialog dir div dl dt"
        " fieldset figcaption figure footer form header hgroup hr legend li main menu ol option p"
        " pre section summary table tbody td tfoot th thead tr ul".split()
    )
    | _HEADINGS.keys()
)
# A table that holds one of these arranges a page; it does not hold data.
_LAYOUT = frozenset(("table", "p", "div", "ul", "ol", "section", "article")) | _HEADINGS.keys()
_SPACE = re.compile(r"\s+")


class HtmlParser:
    """Headings, paragraphs, lists, data tables and listings, without navigation and scripts."""

    def parse(self, source: Source) -> Extraction:
        decoded = decode(source.data, html=True, declared=charset_of(source.content_type))
        if decoded.is_binary:
            raise unreadable(source.filename, "its content is not HTML")
        tree = LexborHTMLParser(decoded.text)
        heading = tree.css_first("head > title")
        title = " ".join(heading.text().split()) if heading is not None else ""
        walk = _Walk()
        if tree.body is not None:
            walk.run(tree.body)
        return walk.layout.extraction(title=title, warnings=decoded.warnings)


class _Walk:
    """One pass over the tree."""

    def __init__(self) -> None:
        self.layout = Layout()
        self._text: list[str] = []
        self._items: list[str] = []
        self._rows: list[str] = []
        self._cells: list[str] = []
        self._kind: BlockKind = "paragraph"
        self._lists: list[int | None] = []
        self._item_open = False
        self._data_table: int | None = None
        self._pre = 0
        self._level = 0

    def run(self, body: LexborNode) -> None:
        layout_tables = _layout_tables(body)
        for node, entering in _steps(body):
            if entering:
                self._enter(node, layout_tables)
            else:
                self._leave(node)
        self._flush()
        self._end_list()

    def _enter(self, node: LexborNode, layout_tables: set[int]) -> None:
        tag = node.tag or ""
        if tag == "-text":
            self._say(node.text_content or "")
        elif tag == "br":
            self._text.append("\n")
        elif self._data_table is not None:
            if tag in ("td", "th", "caption"):
                self._text.clear()
        elif tag in _BLOCKS and tag not in _SKIPPED:
            self._flush()
            if tag == "table" and node.mem_id not in layout_tables:
                self._end_list()
                self._data_table = node.mem_id
            elif tag in _HEADINGS:
                self._end_list()
                self._kind, self._level = "heading", _HEADINGS[tag]
            elif tag == "pre":
                self._end_list()
                self._kind = "code"
                self._pre += 1
            elif tag in ("ul", "ol", "menu", "dir"):
                self._lists.append(1 if tag == "ol" else None)
            elif tag == "li":
                self._item_open = True
            elif not self._lists:
                self._end_list()

    def _leave(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if self._data_table is not None:
            self._leave_table(tag, node.mem_id)
        elif tag in _BLOCKS and tag not in _SKIPPED:
            self._flush()
            if tag == "pre":
                self._pre = max(0, self._pre - 1)
            elif tag in ("ul", "ol", "menu", "dir") and self._lists:
                self._lists.pop()
                if not self._lists:
                    self._end_list()

    def _leave_table(self, tag: str, mem_id: int) -> None:
        if tag in ("td", "th"):
            self._cells.append(" ".join("".join(self._text).split()))
            self._text.clear()
        elif tag == "caption":
            self._rows.append(" ".join("".join(self._text).split()))
            self._text.clear()
        elif tag == "tr":
            if any(self._cells):
                self._rows.append(" | ".join(self._cells))
            self._cells.clear()
        elif tag == "table" and mem_id == self._data_table:
            self._data_table = None
            self.layout.add("\n".join(self._rows), "table")
            self._rows.clear()
            self._text.clear()

    def _say(self, text: str) -> None:
        self._text.append(text if self._pre else _fold(text))

    def _flush(self) -> None:
        """End the running block."""
        raw = "".join(self._text)
        self._text.clear()
        kind, self._kind = self._kind, "paragraph"
        text = raw.strip("\r\n") if kind == "code" else _tidy(raw)
        if not text.strip():
            return
        if kind == "paragraph" and self._lists:
            self._items.append(self._bullet() + text)
        else:
            self.layout.add(text, kind, level=self._level if kind == "heading" else 0)

    def _bullet(self) -> str:
        indent = "  " * (len(self._lists) - 1)
        if not self._item_open:
            return indent + "  "
        self._item_open = False
        number = self._lists[-1]
        if number is None:
            return indent + "- "
        self._lists[-1] = number + 1
        return f"{indent}{number}. "

    def _end_list(self) -> None:
        self.layout.add("\n".join(self._items), "list")
        self._items.clear()


def _layout_tables(body: LexborNode) -> set[int]:
    """The tables that arrange a page, by identity."""
    found: set[int] = set()
    open_tables: list[int] = []
    for node, entering in _steps(body):
        tag = node.tag or ""
        if entering:
            if tag in _LAYOUT:
                found.update(open_tables[-1:])
            if tag == "table":
                open_tables.append(node.mem_id)
        elif tag == "table":
            table = open_tables.pop()
            if table in found:
                found.update(open_tables[-1:])
    return found


def _steps(root: LexborNode) -> Iterator[tuple[LexborNode, bool]]:
    """Every node below and with ``root`` in document order: (node, True) when it opens, (node,
    False) when it ends. Without recursion: a page may nest as deep as it likes."""
    path = [root]
    yield root, True
    child = root.first_child
    while path:
        if child is not None:
            path.append(child)
            yield child, True
            child = None if child.tag in _SKIPPED else child.first_child
            continue
        node = path.pop()
        yield node, False
        if path:
            child = node.next


def _fold(text: str) -> str:
    """White space as a browser folds it; a source line's end within Japanese is no space."""
    folded: list[str] = []
    last = 0
    for match in _SPACE.finditer(text):
        folded.append(text[last : match.start()])
        before, after = text[: match.start()][-1:], text[match.end() :][:1]
        broken = "\n" in match[0]
        folded.append(separator(before, after) if broken and before and after else " ")
        last = match.end()
    folded.append(text[last:])
    return "".join(folded)


def _tidy(text: str) -> str:
    return "\n".join(
        line for part in text.split("\n") if (line := " ".join(part.split(" ")).strip())
    )
