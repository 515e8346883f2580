"""Recognition by content first, and refusals that say what and why."""

import io
import zipfile

import pytest

from services.preprocess.formats import recognise
from services.runtime.errors import InvalidArgument

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)


def archive(*names: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as made:
        for name in names:
            made.writestr(name, "x")
    return target.getvalue()


DOCX = archive("[Content_Types].xml", "word/document.xml")


@pytest.mark.parametrize(
    ("data", "filename", "content_type", "expected"),
    [
        (b"%PDF-1.7 ...", "a.pdf", "", "pdf"),
        (b"%PDF-1.7 ...", "a.txt", "text/plain", "pdf"),
        (b"junk\n%PDF-1.4", "a", "", "pdf"),
        (DOCX, "a.docx", "", "docx"),
        (DOCX, "a.zip", "", "docx"),
        (b"<html></html>", "a.HTM", "", "html"),
        (b"# Title", "dir\\a.MD", "", "md"),
        (b"plain", "a.txt", "", "txt"),
        (b"plain", "a", "", "txt"),
        (b"# Title", "a", "text/markdown; charset=utf-8", "md"),
        (b"<!-- x --><!DOCTYPE HTML><p>", "a", "", "html"),
    ],
)
def test_supported_formats(data: bytes, filename: str, content_type: str, expected: str) -> None:
    assert recognise(data, filename, content_type) == expected


@pytest.mark.parametrize(
    ("data", "filename", "reason", "says"),
    [
        (b"", "a.pdf", "EMPTY_DOCUMENT", "no bytes"),
        (PNG, "a.pdf", "UNSUPPORTED_FORMAT", "PNG image"),
        (b"hello", "a.pdf", "UNREADABLE_DOCUMENT", "not pdf"),
        (b"hello", "a.docx", "UNREADABLE_DOCUMENT", "not docx"),
        (OLE, "a.doc", "UNSUPPORTED_FORMAT", "old binary"),
        (OLE + "EncryptedPackage".encode("utf-16-le"), "a.docx", "ENCRYPTED_DOCUMENT", "password"),
        (archive("ppt/presentation.xml"), "a.pptx", "UNSUPPORTED_FORMAT", "PowerPoint"),
        (archive("xl/workbook.xml"), "a.xlsx", "UNSUPPORTED_FORMAT", "Excel"),
        (archive("any.txt"), "a.zip", "UNSUPPORTED_FORMAT", "ZIP archive"),
        (archive("any.txt"), "a.docx", "UNREADABLE_DOCUMENT", "no Word document"),
        (DOCX[:40], "a.docx", "UNREADABLE_DOCUMENT", "damaged"),
        (b"a,b\n1,2", "a.csv", "UNSUPPORTED_FORMAT", ".csv"),
        (b"{}", "a.json", "UNSUPPORTED_FORMAT", ".json"),
        (b"\x1f\x8b\x08", "a.gz", "UNSUPPORTED_FORMAT", "gzip"),
        (b"{\\rtf1", "a.rtf", "UNSUPPORTED_FORMAT", "RTF"),
    ],
)
def test_refusals_name_the_file_and_the_reason(
    data: bytes, filename: str, reason: str, says: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        recognise(data, filename)
    assert caught.value.reason == reason
    assert filename in caught.value.message
    assert says in caught.value.message
    if reason == "UNSUPPORTED_FORMAT":
        assert "pdf, docx, html, md and txt" in caught.value.message


def test_a_hostile_name_stays_on_one_line() -> None:
    with pytest.raises(InvalidArgument) as caught:
        recognise(b"", "a\r\nb\x1b[2J" + "x" * 2_000 + ".pdf")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300
