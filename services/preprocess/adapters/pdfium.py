"""PDF by PDFium: text by page, headings by bookmark and by size of type."""

import ctypes
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import pypdfium2 as pdfium
from pypdfium2 import raw

from services.preprocess.documents import MAX_HEADING_CHARACTERS, Extraction, Layout, Source
from services.preprocess.linebreaks import join_lines, separator
from services.preprocess.refusals import encrypted, over_limit, unreadable
from services.text.normalize import normalize

MAX_PAGES = 20_000
# Type this much larger than the text's is a heading's.
_LARGER = 1.12
# Sizes closer than this are one level.
_SIZE_STEP = 0.5
_MAX_LEVELS = 6
# Baselines of one heading's lines lie at most this many type sizes apart.
_HEADING_LEADING = 1.45
# A line that leaves room for the next one's first word, and this much more (in type sizes), ends
# its paragraph: Japanese lines end early only where a character may not begin a line.
_SPARE = 0.5
_SPARE_UNSPACED = 2.0
# Left edges this close, in points, belong to one column of text.
_COLUMN = 40.0
# A gap between baselines this much larger than usual ends a paragraph.
_WIDE_GAP = 1.35
_NO_TITLES = frozenset(
    (
        "",
        "untitled",
        "(anonymous)",
        "(unspecified)",
        "untitled document",
        "untitled spreadsheet",
        "document",
        "microsoft word",
    )
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page, in PDF points; y grows upwards."""

    text: str
    size: float
    left: float
    right: float
    y: float
    page: int


class PdfParser:
    """Lines are joined into paragraphs by geometry, so that words are whole again."""

    def parse(self, source: Source) -> Extraction:
        try:
            document = pdfium.PdfDocument(source.data)
        except pdfium.PdfiumError:
            if raw.FPDF_GetLastError() == raw.FPDF_ERR_PASSWORD:
                raise encrypted(source.filename) from None
            raise unreadable(source.filename, "the PDF is damaged or cut off") from None
        try:
            return _extract(document, source.filename)
        finally:
            document.close()


def _extract(document: pdfium.PdfDocument, filename: str) -> Extraction:
    count = len(document)
    if count > MAX_PAGES:
        raise over_limit(filename, f"it has {count:,} pages, the most is {MAX_PAGES:,}")
    pages: list[list[Line]] = []
    failed: list[int] = []
    for index in range(count):
        try:
            pages.append(_page_lines(document[index], index + 1))
        except pdfium.PdfiumError:
            pages.append([])
            failed.append(index + 1)
    if count and len(failed) == count:
        raise unreadable(filename, "none of its pages can be opened")
    layout = Layout()
    levels = _levels([line for page in pages for line in page])
    bookmarks = _bookmarks(document)
    for lines in pages:
        _lay_out(lines, levels, bookmarks, layout)
    title = str(document.get_metadata_dict().get("Title") or "").strip()
    warnings = (f"Pages could not be read: {_numbers(failed)}.",) if failed else ()
    return layout.extraction(
        title="" if title.lower() in _NO_TITLES else title, pages=count, warnings=warnings
    )


def _page_lines(page: pdfium.PdfPage, number: int) -> list[Line]:
    """The page's lines in reading order."""
    textpage = page.get_textpage()
    try:
        count = textpage.count_chars()
        lines: list[Line] = []
        chars: list[tuple[int, str]] = []
        for index in range(count):
            char = chr(raw.FPDFText_GetUnicode(textpage, index))
            if char == "\n":
                _end_line(textpage, chars, number, lines)
                chars = []
            elif char not in "\0\r":  # PDFium ends lines with both \r and \n
                chars.append((index, char))
        _end_line(textpage, chars, number, lines)
        return lines
    finally:
        textpage.close()
        page.close()


def _end_line(
    textpage: pdfium.PdfTextPage, chars: list[tuple[int, str]], number: int, lines: list[Line]
) -> None:
    # PDFium gives UTF-16 units; pairs of them are one character.
    # U+0002 is PDFium's mark for a hyphen that broke a word at a line's end.
    text = "".join(char for _, char in chars).replace("\x02", "")
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    visible = [index for index, char in chars if not char.isspace()]
    if not visible:
        if lines:  # a blank line ends a paragraph as a wide gap does
            lines.append(Line("", 0.0, 0.0, 0.0, 0.0, number))
        return
    left, y = _origin(textpage, visible[0])
    right = _right(textpage, visible[-1])
    sample = visible[:: max(1, len(visible) // 8)]
    size = median(_size(textpage, index) for index in sample)
    lines.append(Line(text, size, left, right, y, number))


def _origin(textpage: pdfium.PdfTextPage, index: int) -> tuple[float, float]:
    """Where a character stands on its baseline."""
    x, y = ctypes.c_double(), ctypes.c_double()
    raw.FPDFText_GetCharOrigin(textpage, index, x, y)
    return x.value, y.value


def _right(textpage: pdfium.PdfTextPage, index: int) -> float:
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    raw.FPDFText_GetCharBox(textpage, index, left, right, bottom, top)
    return right.value


def _size(textpage: pdfium.PdfTextPage, index: int) -> float:
    """The type size as shown: the loose box knows scaled coordinates, the font does not."""
    box = raw.FS_RECTF()
    if raw.FPDFText_GetLooseCharBox(textpage, index, box):
        height = abs(box.top - box.bottom)
        if height > 0:
            return float(height)
    return float(raw.FPDFText_GetFontSize(textpage, index))


def _levels(lines: list[Line]) -> dict[float, int]:
    """Size of heading type (rounded) -> level. The size with most characters is the text's."""
    weights: Counter[float] = Counter()
    for line in lines:
        weights[_rounded(line.size)] += len(line.text)
    weights.pop(0.0, None)
    if not weights:
        return {}
    body = weights.most_common(1)[0][0]
    larger = sorted((size for size in weights if size >= body * _LARGER), reverse=True)
    return {size: min(level, _MAX_LEVELS) for level, size in enumerate(larger, start=1)}


def _rounded(size: float) -> float:
    return round(size / _SIZE_STEP) * _SIZE_STEP


def _bookmarks(document: pdfium.PdfDocument) -> dict[tuple[int, str], int]:
    """(page, title) -> level, from the outline."""
    found: dict[tuple[int, str], int] = {}
    try:
        for bookmark in document.get_toc(max_depth=_MAX_LEVELS):
            destination = bookmark.get_dest()
            page = destination.get_index() if destination is not None else None
            title = _key(bookmark.get_title() or "")
            if page is not None and title:
                found.setdefault((page + 1, title), bookmark.level + 1)
    except pdfium.PdfiumError:
        return found  # a damaged outline only costs headings
    return found


def _key(text: str) -> str:
    return "".join(normalize(text).split()).lower()


def _lay_out(
    lines: list[Line],
    levels: dict[float, int],
    bookmarks: dict[tuple[int, str], int],
    layout: Layout,
) -> None:
    """A page's lines as headings and paragraphs."""
    widest = _widest(lines)
    gap = _usual_gap(lines)
    paragraph: list[Line] = []
    heading: list[Line] = []
    heading_level = 0

    def end() -> None:
        nonlocal heading_level
        if heading:
            text = join_lines([line.text for line in heading])
            layout.add(text, "heading", level=heading_level, page=heading[0].page)
            heading.clear()
            heading_level = 0
        if paragraph:
            layout.add(join_lines([line.text for line in paragraph]), page=paragraph[0].page)
            paragraph.clear()

    for line in lines:
        if not line.text:
            end()
            continue
        level = bookmarks.get((line.page, _key(line.text))) or levels.get(_rounded(line.size), 0)
        if level and len(line.text) <= MAX_HEADING_CHARACTERS and not _is_number(line.text):
            if paragraph or (heading and not _continues(heading[-1], line)):
                end()
            heading.append(line)
            heading_level = level
            continue
        if heading or (paragraph and _starts_new(paragraph[-1], line, widest, gap)):
            end()
        paragraph.append(line)
    end()


def _continues(last: Line, line: Line) -> bool:
    """Whether a heading goes on in the next line."""
    same_type = abs(last.size - line.size) <= _SIZE_STEP
    return same_type and 0 < last.y - line.y <= _HEADING_LEADING * line.size


def _is_number(text: str) -> bool:
    return not any(char.isalpha() for char in text)


def _widest(lines: list[Line]) -> dict[int, float]:
    """Column of left edges -> the farthest right edge of the lines that begin there."""
    widest: dict[int, float] = {}
    for line in lines:
        if line.text:
            # Counted for both neighbours, so that an indented line knows its column's edge.
            first = int(line.left // _COLUMN)
            for column in (first - 1, first, first + 1):
                widest[column] = max(widest.get(column, 0.0), line.right)
    return widest


def _usual_gap(lines: list[Line]) -> float:
    gaps = [
        upper.y - lower.y
        for upper, lower in pairwise(lines)
        if upper.text and lower.text and upper.y > lower.y
    ]
    return median(gaps) if gaps else 0.0


def _starts_new(last: Line, line: Line, widest: dict[int, float], gap: float) -> bool:
    """Whether a paragraph ends between two lines."""
    if abs(last.size - line.size) > _SIZE_STEP * 2:
        return True
    if gap and last.y - line.y > gap * _WIDE_GAP:
        return True
    edge = widest.get(int(last.left // _COLUMN), last.right)
    spaced = separator(last.text, line.text) != ""
    word = len(line.text.split(" ", 1)[0]) + 1 if spaced else 1
    width = (line.right - line.left) / max(1, len(line.text))
    spare = (_SPARE if spaced else _SPARE_UNSPACED) * max(last.size, 1.0)
    return edge - last.right > word * width + spare


def _numbers(pages: list[int]) -> str:
    shown = ", ".join(str(page) for page in pages[:10])
    return shown if len(pages) <= 10 else f"{shown} and {len(pages) - 10} more"
