"""Office containers: limits hold before anything unfolds."""

import io
import re
import zipfile

import pytest

from services.preprocess.archives import MIB, ArchiveLimits, checked_parts
from services.runtime.errors import RagmeshError

WANTED = re.compile(r"word/[a-z]+\.xml")
LIMITS = ArchiveLimits(entries=5, entry_bytes=4 * MIB, total_bytes=6 * MIB, ratio=50)


def archive(**parts: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in parts.items():
            made.writestr(name.replace("__", "/").replace("_xml", ".xml"), content)
    return target.getvalue()


def refused(data: bytes) -> str:
    with pytest.raises(RagmeshError) as caught:
        checked_parts(data, "a.docx", WANTED, LIMITS)
    assert "a.docx" in caught.value.message
    return caught.value.reason


def test_only_wanted_parts_reach_the_parser() -> None:
    data = archive(word__document_xml=b"<w/>", word__media__x_xml=b"1", evil=b"2")
    clean = zipfile.ZipFile(io.BytesIO(checked_parts(data, "a.docx", WANTED, LIMITS)))
    assert clean.namelist() == ["word/document.xml"]
    assert clean.read("word/document.xml") == b"<w/>"


@pytest.mark.parametrize(
    "parts",
    [
        {"word__document_xml": bytes(5 * MIB)},
        {"word__document_xml": bytes(2 * MIB)},  # 1 : 1000
        {"other__document_xml": bytes(5 * MIB)},  # not wanted, but a bomb all the same
        {f"word__{name}_xml": b"x" for name in "abcdef"},
    ],
    ids=["size", "ratio", "aside", "entries"],
)
def test_bombs_are_refused(parts: dict[str, bytes]) -> None:
    assert refused(archive(**parts)) == "PARSE_LIMIT"


def test_a_lying_header_unfolds_no_further_than_it_declares() -> None:
    content = bytes(range(256)) * 1024
    data = bytearray(archive(word__document_xml=content))
    at = data.index(b"PK\x01\x02") + 24  # the size in the directory
    data[at : at + 4] = (10).to_bytes(4, "little")
    assert refused(bytes(data)) == "UNREADABLE_DOCUMENT"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("text", ["<!DOCTYPE x>", '<!ENTITY a "b">', "<! doctype x>"])
def test_document_types_are_refused(text: str, encoding: str) -> None:
    data = archive(word__document_xml=f"<?xml version='1.0'?>\n{text}<w/>".encode(encoding))
    assert refused(data) == "UNREADABLE_DOCUMENT"


def test_an_encrypted_entry_is_refused_as_such() -> None:
    data = bytearray(archive(word__document_xml=b"<w/>"))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert refused(bytes(data)) == "ENCRYPTED_DOCUMENT"
