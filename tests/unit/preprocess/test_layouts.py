"""What single parsers make of single things."""

import pytest

from services.preprocess.adapters.markdown import MarkdownParser
from services.preprocess.adapters.plain import PlainParser
from services.preprocess.adapters.selectolax import HtmlParser
from services.preprocess.documents import Source
from services.preprocess.linebreaks import join_lines
from services.preprocess.ports import Parser


def blocks(parser: Parser, text: str) -> list[tuple[str, str]]:
    extraction = parser.parse(Source("a", "", text.encode()))
    return [(block.kind, extraction.text[block.start : block.end]) for block in extraction.blocks]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("a<p>b<div>c</div>d", [("paragraph", text) for text in "abcd"]),
        ("<p>日本\n語<br>次</p>", [("paragraph", "日本語\n次")]),
        ("<ol><li>a<ul><li>b</ul><li>c</ol>", [("list", "1. a\n  - b\n2. c")]),
        ("<ul><li><p>a</p><p>b</p></ul>", [("list", "- a\n  b")]),
        ("<pre>x\n  y</pre>", [("code", "x\n  y")]),
        (
            "<table><tr><td><table><tr><td>1<td>2</table><td>b</table>",
            [("table", "1 | 2"), ("paragraph", "b")],
        ),
        ("<table><caption>T</caption><tr><td>1<td><td>3</table>", [("table", "T\n1 |  | 3")]),
        ("<h2> A <em>b</em></h2><script>x</script>", [("heading", "A b")]),
        ("<table><tr><td>open", [("table", "open")]),
        ("<p></p><template><p>x</template><noscript>y</noscript>", []),
        ("", []),
    ],
)
def test_html(page: str, expected: list[tuple[str, str]]) -> None:
    assert blocks(HtmlParser(), page) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a\nb\n\nc", [("paragraph", "a\nb"), ("paragraph", "c")]),
        ("Title\n=====\n\nText", [("heading", "Title\n====="), ("paragraph", "Text")]),
        ("# A `b` [c](d)\r\n\r\nText\r\n", [("heading", "# A `b` [c](d)"), ("paragraph", "Text")]),
        ("```sh\nmake\n\nrun\n```", [("code", "```sh\nmake\n\nrun\n```")]),
        ("- a\n\n- b\n\n***\n", [("list", "- a\n\n- b")]),
        ("<!-- x -->\n\n<p align=center></p>\n\n<b>seen</b>", [("paragraph", "<b>seen</b>")]),
        ("> quoted", [("paragraph", "> quoted")]),
        ("", []),
    ],
)
def test_markdown(source: str, expected: list[tuple[str, str]]) -> None:
    assert blocks(MarkdownParser(), source) == expected


def test_markdown_labels_are_plain() -> None:
    extraction = MarkdownParser().parse(Source("a.md", "", b"## A *b* `c` [d](e)\n"))
    assert (extraction.blocks[0].level, extraction.blocks[0].label) == (2, "A b c d")


def test_plain_paragraphs_lie_between_blank_lines() -> None:
    assert blocks(PlainParser(), "\n a\nb \r\n \r\n\r\nc\r\rd\n") == [
        ("paragraph", "a\nb"),
        ("paragraph", "c"),
        ("paragraph", "d"),
    ]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["道路", "標識"], "道路標識"),
        (["the end", "of it"], "the end of it"),
        (["port", "番号"], "port 番号"),
        (["syl\u00ad", "lable"], "syllable"),
        (["", " a ", ""], "a"),
    ],
)
def test_broken_lines_are_joined(lines: list[str], expected: str) -> None:
    assert join_lines(lines) == expected
