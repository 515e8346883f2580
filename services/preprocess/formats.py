"""Which format a file is: by its content first, then by its name and declared type."""

import re
from pathlib import PurePosixPath

from services.preprocess.archives import open_archive
from services.preprocess.refusals import empty, encrypted, unreadable, unsupported

SUPPORTED = "pdf, docx, html, md and txt"
"""For messages."""

EXTENSIONS = {
    "pdf": "pdf",
    "docx": "docx",
    "html": "html",
    "htm": "html",
    "xhtml": "html",
    "md": "md",
    "markdown": "md",
    "txt": "txt",
    "text": "txt",
}
MEDIA_TYPES = {
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/markdown": "md",
    "text/x-markdown": "md",
    "text/plain": "txt",
}
# Content that tells itself apart: magic bytes -> what to call it.
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "is a PNG image"),
    (b"\xff\xd8\xff", "is a JPEG image"),
    (b"GIF8", "is a GIF image"),
    (b"II*\0", "is a TIFF image"),
    (b"MM\0*", "is a TIFF image"),
    (b"\x1f\x8b", "is a gzip archive"),
    (b"BZh", "is a bzip2 archive"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive"),
    (b"Rar!", "is a RAR archive"),
    (b"\xfd7zXZ\0", "is an xz archive"),
    (b"{\\rtf", "is an RTF document"),
    (b"\x7fELF", "is a program"),
    (b"MZ\x90\0", "is a program"),
    (b"%!PS", "is a PostScript document"),
    (b"ID3", "is an audio file"),
    (b"OggS", "is an audio file"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_STREAM = "EncryptedPackage".encode("utf-16-le")
_PDF_HEADER_WITHIN = 1024
_HTML_START = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html\b)",
    re.IGNORECASE | re.DOTALL,
)


def extension_of(filename: str) -> str:
    """The extension in lower case without its dot; empty when there is none."""
    return PurePosixPath(filename.replace("\\", "/")).suffix.lower().removeprefix(".")


def recognise(data: bytes, filename: str, content_type: str = "") -> str:
    """The format's name: ``pdf``, ``docx``, ``html``, ``md`` or ``txt``.

    Raises:
        InvalidArgument: EMPTY_DOCUMENT, UNSUPPORTED_FORMAT, UNREADABLE_DOCUMENT (named as a
            format that its content is not) or ENCRYPTED_DOCUMENT.
    """
    if not data:
        raise empty(filename, "is empty: it has no bytes")
    if b"%PDF-" in data[:_PDF_HEADER_WITHIN]:
        return "pdf"
    for magic, what in _MAGIC:
        if data.startswith(magic):
            raise unsupported(filename, what, SUPPORTED)
    if data.startswith(_OLE):
        if _ENCRYPTED_STREAM in data:
            raise encrypted(filename)
        raise unsupported(filename, "is an Office file of the old binary kind", SUPPORTED)
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return _container(data, filename)
    return _text_format(data, filename, content_type)


def _container(data: bytes, filename: str) -> str:
    names = set(open_archive(data, filename).namelist())
    if "word/document.xml" in names or (
        "[Content_Types].xml" in names and any(name.startswith("word/") for name in names)
    ):
        return "docx"
    if any(name.startswith("ppt/") for name in names):
        what = "is a PowerPoint presentation"
    elif any(name.startswith("xl/") for name in names):
        what = "is an Excel workbook"
    elif "mimetype" in names and "META-INF/container.xml" in names:
        what = "is an EPUB book"
    elif extension_of(filename) == "docx":
        raise unreadable(filename, "the file has no Word document inside")
    else:
        what = "is a ZIP archive"
    raise unsupported(filename, what, SUPPORTED)


def _text_format(data: bytes, filename: str, content_type: str) -> str:
    extension = extension_of(filename)
    by_name = EXTENSIONS.get(extension)
    if by_name in ("pdf", "docx"):
        raise unreadable(filename, f"it is named .{extension} but its content is not {by_name}")
    if by_name is not None:
        return by_name
    by_type = MEDIA_TYPES.get(content_type.partition(";")[0].strip().lower())
    if by_type is not None and not extension:
        return by_type
    if not extension:
        return "html" if _HTML_START.match(data[:4096]) else "txt"
    if by_type in ("html", "md"):
        return by_type
    raise unsupported(filename, f"has the extension .{extension}", SUPPORTED)
