"""The sample documents hold the answers that docs/samples/questions.json promises."""

from __future__ import annotations

import json
import unicodedata
import zipfile
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pypdfium2
import pytest

SAMPLES = Path(__file__).resolve().parents[2] / "docs" / "samples"
SUFFIXES = {".pdf", ".docx", ".html", ".md", ".txt"}
DOCUMENTS = sorted(path for path in SAMPLES.iterdir() if path.suffix in SUFFIXES)
PDF_BYTES = 300 * 1024
WORD_TEXT = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}t"


@dataclass(frozen=True)
class Question:
    lang: str
    question: str
    document: str
    page: int | None
    answer_contains: list[str]
    demo: bool = False

    def __str__(self) -> str:
        return self.question


QUESTIONS = [
    Question(**question)
    for question in json.loads((SAMPLES / "questions.json").read_text(encoding="utf-8"))
]
DEMO = [question for question in QUESTIONS if question.demo]


class TextOfHtml(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data


def squeezed(text: str) -> str:
    """NFKC without white space or Markdown's back-quotes: line breaks fall inside sentences."""
    return "".join(unicodedata.normalize("NFKC", text).replace("`", "").split())


def pages_of(path: Path) -> list[str]:
    """Text of each page, squeezed; a format without pages is one."""
    if path.suffix == ".pdf":
        with pypdfium2.PdfDocument(path) as pdf:
            return [squeezed(page.get_textpage().get_text_bounded()) for page in pdf]
    if path.suffix == ".docx":
        with zipfile.ZipFile(path) as archive:
            body = ElementTree.fromstring(archive.read("word/document.xml"))  # noqa: S314  our own file
        return [squeezed("".join(element.text or "" for element in body.iter(WORD_TEXT)))]
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        reader = TextOfHtml()
        reader.feed(text)
        text = reader.text
    return [squeezed(text)]


def test_the_two_demo_questions_come_first_one_in_each_language() -> None:
    assert QUESTIONS[:2] == DEMO
    assert [question.lang for question in DEMO] == ["en", "ja"]


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_the_answer_stands_on_the_page_that_the_question_names(question: Question) -> None:
    pages = pages_of(SAMPLES / question.document)
    assert (question.page is not None) == question.document.endswith(".pdf")
    page = pages[(question.page or 1) - 1]
    for part in question.answer_contains:
        assert squeezed(part) in page


@pytest.mark.parametrize("question", DEMO, ids=str)
def test_a_demo_answer_stands_on_a_later_page_of_one_document_only(question: Question) -> None:
    assert question.page is not None
    assert question.page >= 2
    parts = [squeezed(part) for part in question.answer_contains]
    places = [
        (path.name, number)
        for path in DOCUMENTS
        for number, page in enumerate(pages_of(path), start=1)
        if all(part in page for part in parts)
    ]
    assert places == [(question.document, question.page)]


def test_every_document_has_a_question_and_both_languages_have_a_long_pdf() -> None:
    assert {question.document for question in QUESTIONS} == {path.name for path in DOCUMENTS}
    long_pdfs = {q.lang for q in DEMO if len(pages_of(SAMPLES / q.document)) >= 3}
    assert long_pdfs == {"en", "ja"}


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if p.suffix == ".pdf"], ids=lambda p: p.name)
def test_a_pdf_is_small_and_its_text_is_real_characters(path: Path) -> None:
    assert path.stat().st_size < PDF_BYTES
    for page in pages_of(path):
        # Private use and unassigned code points are what a missing ToUnicode map leaves behind.
        assert {unicodedata.category(character) for character in page}.isdisjoint(
            {"Co", "Cn", "Cc"}
        )
        assert "\N{REPLACEMENT CHARACTER}" not in page
