"""What every parser of the REGISTRY promises."""

import pytest

from services.preprocess.adapters import REGISTRY
from services.preprocess.documents import Extraction, Source
from services.preprocess.formats import recognise
from services.preprocess.ports import Parser
from services.runtime.errors import InvalidArgument
from services.runtime.registry import resolve
from tests.contract.preprocess.samples import FIRST, JAPANESE, PARAGRAPH, SAMPLES, SECOND, TITLE

FORMATS = sorted(REGISTRY)


def parser_of(name: str) -> Parser:
    parser: Parser = resolve(REGISTRY, name, "format")()
    return parser


def parsed(name: str) -> Extraction:
    return parser_of(name).parse(Source(f"a.{name}", "", SAMPLES[name]()))


def texts(extraction: Extraction) -> list[str]:
    return [extraction.text[block.start : block.end] for block in extraction.blocks]


@pytest.mark.parametrize("name", FORMATS)
def test_the_sample_is_recognised(name: str) -> None:
    assert recognise(SAMPLES[name](), f"a.{name}") == name


@pytest.mark.parametrize("name", FORMATS)
def test_blocks_are_slices_in_order(name: str) -> None:
    extraction = parsed(name)
    end = 0
    for block in extraction.blocks:
        assert end <= block.start < block.end <= len(extraction.text)
        end = block.end
        assert (block.kind == "heading") == bool(block.level) == bool(block.label)
        assert (block.page is not None) == bool(extraction.pages)
    assert not extraction.warnings


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "pdf"])
def test_paragraphs_are_whole(name: str) -> None:
    assert {PARAGRAPH, JAPANESE} <= set(texts(parsed(name)))


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("pdf", "txt")])
def test_headings_tables_and_titles_are_kept(name: str) -> None:
    extraction = parsed(name)
    headings = [(b.level, b.label) for b in extraction.blocks if b.kind == "heading"]
    assert headings == [(1, FIRST), (2, SECOND)]
    (table,) = [block for block in extraction.blocks if block.kind == "table"]
    rows = extraction.text[table.start : table.end].splitlines()
    assert [cell.strip() for cell in rows[-1].strip("|").split("|")] == ["1", "2"]
    assert extraction.title == TITLE


def test_a_pdf_has_pages_headings_and_whole_paragraphs() -> None:
    extraction = parsed("pdf")
    assert extraction.pages == 2
    assert extraction.title == TITLE
    assert [(b.kind, b.page) for b in extraction.blocks] == [
        ("heading", 1),
        ("paragraph", 1),
        ("heading", 2),
        ("paragraph", 2),
    ]
    assert texts(extraction) == [
        FIRST,
        "The gateway answers on port 8000, which is the first of its ports.",
        "Settings",
        "They are read once.",
    ]


@pytest.mark.parametrize("name", ["docx", "pdf"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_file_is_refused_or_read_in_part(name: str, share: float) -> None:
    data = SAMPLES[name]()
    refusal = refusal_of(name, Source(f"cut.{name}", "", data[: int(len(data) * share)]))
    assert refusal is None or refusal.reason == "UNREADABLE_DOCUMENT"
    assert refusal is None or f"cut.{name}" in refusal.message


def refusal_of(name: str, source: Source) -> InvalidArgument | None:
    try:
        parser_of(name).parse(source)
    except InvalidArgument as error:
        return error
    return None


@pytest.mark.parametrize("name", ["html", "md", "txt"])
def test_bytes_that_are_no_text_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parser_of(name).parse(Source(f"a.{name}", "", bytes(range(32)) * 50))
    assert caught.value.reason == "UNREADABLE_DOCUMENT"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_sample(name: str) -> None:
    assert name in SAMPLES
