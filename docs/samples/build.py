"""Builds the PDF and Word samples from ``source/*.toml``.

The results are committed: nobody runs this to use the mesh, only after editing a source::

    pip install reportlab==5.1.0 python-docx==1.2.0
    python docs/samples/build.py --fonts /usr/share/fonts/truetype/bizud-gothic

The fonts are BIZ UDPGothic (SIL Open Font License 1.1; Debian package
``fonts-morisawa-bizud-gothic``). Only the glyphs that a PDF uses are embedded, with a ToUnicode map
so that the text can be extracted. The same sources and library versions give the same bytes.
"""

from __future__ import annotations

import argparse
import datetime
import html
import io
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import docx
from docx.oxml.ns import qn
from docx.shared import Pt
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import (
    Flowable,
    PageBreak,
    Paragraph,
    Preformatted,
    SimpleDocTemplate,
    Spacer,
)

SAMPLES = Path(__file__).parent
SOURCE = SAMPLES / "source"
EPOCH = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)

BlockKind = Literal["heading", "bullet", "code", "text"]
FORMATS: dict[str, Literal["pdf", "docx"]] = {
    "getting-started": "pdf",
    "introduction-ja": "pdf",
    "going-to-production": "docx",
    "authentication-ja": "docx",
}


@dataclass(frozen=True, slots=True)
class Block:
    """One paragraph of a page; ``text`` keeps its line breaks only where ``kind`` is code."""

    kind: BlockKind
    text: str


@dataclass(frozen=True, slots=True)
class Page:
    heading: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Document:
    name: str
    title: str
    subtitle: str
    lang: Literal["en", "ja"]
    pages: tuple[Page, ...]


def parse_body(body: str) -> Iterator[Block]:
    """Blocks of a body, parted by blank lines: ``## `` heading, ``- `` bullet, four spaces code."""
    for paragraph in body.strip("\n").split("\n\n"):
        lines = paragraph.strip("\n").split("\n")
        if lines[0].startswith("## "):
            yield Block("heading", lines[0].removeprefix("## "))
        elif lines[0].startswith("- "):
            yield from (Block("bullet", line.removeprefix("- ")) for line in lines)
        elif lines[0].startswith("    "):
            yield Block("code", "\n".join(line.removeprefix("    ") for line in lines))
        else:
            yield Block("text", paragraph.strip())


def read_document(path: Path) -> Document:
    source = tomllib.loads(path.read_text(encoding="utf-8"))
    pages = tuple(Page(page["heading"], tuple(parse_body(page["body"]))) for page in source["page"])
    return Document(path.stem, source["title"], source["subtitle"], source["lang"], pages)


def pdf_styles(lang: Literal["en", "ja"]) -> dict[str, ParagraphStyle]:
    # Japanese has no spaces to break a line at; the CJK rule also starts no line with 。 or 、.
    wrap = "CJK" if lang == "ja" else None
    base = ParagraphStyle(
        "text", fontName="Sample", fontSize=12, leading=20, spaceAfter=8, wordWrap=wrap
    )
    bold = ParagraphStyle("bold", base, fontName="Sample-Bold")
    return {
        "title": ParagraphStyle("title", bold, fontSize=24, leading=32, spaceAfter=4),
        "subtitle": ParagraphStyle(
            "subtitle", base, fontSize=13, textColor="#555555", spaceAfter=18
        ),
        "page": ParagraphStyle("page", bold, fontSize=19, leading=27, spaceAfter=10),
        "heading": ParagraphStyle(
            "heading", bold, fontSize=15, leading=21, spaceBefore=10, spaceAfter=5
        ),
        "text": base,
        "bullet": ParagraphStyle("bullet", base, leftIndent=14, bulletIndent=2, spaceAfter=3),
        "code": ParagraphStyle("code", base, fontSize=10, leading=15, leftIndent=10, spaceAfter=12),
    }


def pdf_flowables(document: Document) -> Iterator[Flowable]:
    styles = pdf_styles(document.lang)
    yield Paragraph(html.escape(document.title), styles["title"])
    yield Paragraph(html.escape(document.subtitle), styles["subtitle"])
    for number, page in enumerate(document.pages):
        if number:
            yield PageBreak()
        yield Paragraph(html.escape(page.heading), styles["page"])
        for block in page.blocks:
            if block.kind == "code":
                yield Spacer(1, 3)
                yield Preformatted(block.text, styles["code"])
            else:
                bullet = "•" if block.kind == "bullet" else None
                yield Paragraph(html.escape(block.text), styles[block.kind], bulletText=bullet)


def build_pdf(document: Document) -> bytes:
    """One PDF page for each page of the source; a source page that overflows is refused."""
    out = io.BytesIO()
    template = SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=22 * mm,
        rightMargin=22 * mm,
        topMargin=22 * mm,
        bottomMargin=20 * mm,
        title=document.title,
        author="ragmesh",
        lang=document.lang,
        invariant=1,
    )
    template.build(list(pdf_flowables(document)))
    if template.page != len(document.pages):
        raise SystemExit(f"{document.name}: {len(document.pages)} pages became {template.page}")
    return out.getvalue()


def build_docx(document: Document) -> bytes:
    out = docx.Document()
    properties = out.core_properties
    properties.title, properties.author, properties.language = (
        document.title,
        "ragmesh",
        document.lang,
    )
    properties.created = properties.modified = EPOCH
    properties.comments = ""
    body = out.styles["Normal"]
    body.font.size = Pt(10.5)
    if document.lang == "ja":
        body.element.get_or_add_rPr().get_or_add_rFonts().set(qn("w:eastAsia"), "BIZ UDPGothic")
    out.add_heading(document.title, level=0)
    out.add_paragraph(document.subtitle)
    for page in document.pages:
        out.add_heading(page.heading, level=1)
        for block in page.blocks:
            match block.kind:
                case "heading":
                    out.add_heading(block.text, level=2)
                case "bullet":
                    out.add_paragraph(block.text, style="List Bullet")
                case _:
                    out.add_paragraph(block.text)
    packed = io.BytesIO()
    out.save(packed)
    return with_fixed_times(packed.getvalue())


def with_fixed_times(archive: bytes) -> bytes:
    """The same archive with EPOCH as every entry's time: a rebuild gives the same bytes."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as source,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(
                zipfile.ZipInfo(name, EPOCH.timetuple()[:6]),
                source.read(name),
                zipfile.ZIP_DEFLATED,
            )
    return out.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Build the PDF and Word samples from their sources."
    )
    parser.add_argument("--fonts", type=Path, required=True, help="folder of BIZUDPGothic-*.ttf")
    fonts: Path = parser.parse_args(arguments).fonts
    pdfmetrics.registerFont(TTFont("Sample", fonts / "BIZUDPGothic-Regular.ttf"))
    pdfmetrics.registerFont(TTFont("Sample-Bold", fonts / "BIZUDPGothic-Bold.ttf"))
    builders: dict[str, Callable[[Document], bytes]] = {"pdf": build_pdf, "docx": build_docx}
    for name, suffix in FORMATS.items():
        target = SAMPLES / f"{name}.{suffix}"
        target.write_bytes(builders[suffix](read_document(SOURCE / f"{name}.toml")))
        sys.stdout.write(f"{target.name}: {target.stat().st_size // 1024} KiB\n")


if __name__ == "__main__":
    main()
