"""One small document in every format: two headings, a paragraph under each, a list, a table."""

import io
import zipfile
from collections.abc import Callable
from xml.sax.saxutils import escape

TITLE = "Mesh handbook"
FIRST, SECOND = "Ports", "設定"
PARAGRAPH = "The gateway answers on port 8000."
JAPANESE = "設定は起動時に一度だけ読まれます。"


def txt() -> bytes:
    return f"{PARAGRAPH}\n\n{JAPANESE}\n".encode()


def md() -> bytes:
    return (
        f"---\ntitle: {TITLE}\n---\n\n# {FIRST}\n\n{PARAGRAPH}\n\n## {SECOND}\n\n{JAPANESE}\n\n"
        "- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    ).encode()


def html() -> bytes:
    return (
        f"<html><head><title>{TITLE}</title><style>p {{}}</style></head><body><nav>Menu</nav>"
        f"<h1>{FIRST}</h1><p>The gateway\n answers on <b>port</b> 8000.</p>"
        f"<h2>{SECOND}</h2><div>設定は起動時に\n一度だけ読まれます。</div>"
        "<ul><li>one<li>two</ul><table><tr><th>a<th>b<tr><td>1<td>2</table>"
        "<script>ignored()</script></body></html>"
    ).encode()


def docx() -> bytes:
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    package = "http://schemas.openxmlformats.org/package/2006"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    content = "application/vnd.openxmlformats-officedocument.wordprocessingml"

    def paragraph(text: str, style: str = "") -> str:
        chosen = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
        return f"<w:p>{chosen}<w:r><w:t>{escape(text)}</w:t></w:r></w:p>"

    def row(*cells: str) -> str:
        return "<w:tr>" + "".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in cells) + "</w:tr>"

    body = (
        paragraph(FIRST, "Heading1")
        + paragraph(PARAGRAPH)
        + paragraph(SECOND, "Heading2")
        + paragraph(JAPANESE)
        + f"<w:tbl>{row('a', 'b')}{row('1', '2')}</w:tbl>"
    )
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="Heading{level}"><w:name w:val="heading {level}"/>'
        f'<w:pPr><w:outlineLvl w:val="{level - 1}"/></w:pPr></w:style>'
        for level in (1, 2)
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{content}.document.main+xml"/>'
        f'<Override PartName="/word/styles.xml" ContentType="{content}.styles+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
        f'Type="{office}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/_rels/document.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{office}/styles" Target="styles.xml"/></Relationships>',
        "word/styles.xml": f'<w:styles xmlns:w="{word}">{styles}</w:styles>',
        "word/document.xml": f'<w:document xmlns:w="{word}"><w:body>{body}</w:body></w:document>',
        "docProps/core.xml": f'<cp:coreProperties xmlns:cp="{package}/metadata/core-properties" '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{TITLE}</dc:title>'
        "</cp:coreProperties>",
    }
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in parts.items():
            made.writestr(name, '<?xml version="1.0" encoding="UTF-8"?>' + text)
    return target.getvalue()


def pdf() -> bytes:
    """Two pages; Japanese needs an embedded font, so both are in English."""

    def page(heading: str, *lines: str) -> bytes:
        show = f"BT /F1 20 Tf 72 720 Td ({heading}) Tj ET\n"
        for index, line in enumerate(lines):
            show += f"BT /F1 11 Tf 72 {690 - 14 * index} Td ({line}) Tj ET\n"
        return show.encode()

    pages = [
        page(FIRST, "The gateway answers on port 8000, which is", "the first of its ports."),
        page("Settings", "They are read once."),
    ]
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[4 0 R 6 0 R]/Count 2>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for index, content in enumerate(pages):
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>"
            b"/Contents %d 0 R>>" % (5 + 2 * index)
        )
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(content), content))
    objects.append(f"<</Title({TITLE})>>".encode())
    data = b"%PDF-1.4\n"
    offsets: list[int] = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj%s endobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return data + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Size %d/Root 1 0 R/Info %d 0 R>>\n"
        b"startxref\n%d\n%%%%EOF"
        % (len(objects) + 1, table, len(objects) + 1, len(objects), len(data))
    )


SAMPLES: dict[str, Callable[[], bytes]] = {
    "docx": docx,
    "html": html,
    "md": md,
    "pdf": pdf,
    "txt": txt,
}
"""Format -> a sample. The suite fails for a registered format without one."""
