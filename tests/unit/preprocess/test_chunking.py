"""Chunks: nothing lost, order kept, budgets held, offsets right."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.preprocess.chunking import cut
from services.preprocess.documents import Block, BlockKind, Chunk, Chunking, Extraction, Layout
from services.preprocess.tokens import EstimatedTokens
from services.text.normalize import normalize

COUNTER = EstimatedTokens()

JAPANESE = st.lists(
    st.sampled_from(
        [
            "これは試験です。",
            "長い文が続く、そして終わる。",
            "「引用です。」と言った。",
            "ガイド",
            "3.14だ。",
            "。",
        ]
    ),
    min_size=1,
    max_size=12,
).map("".join)
ENGLISH = st.lists(
    st.sampled_from(
        ["It works.", "Dr. Smith said so!", "A sentence, with a clause;", "x" * 300, "v1.2", "Why?"]
    ),
    min_size=1,
    max_size=12,
).map(" ".join)
ANY = st.text(min_size=1, max_size=400)
KINDS: st.SearchStrategy[BlockKind] = st.sampled_from(
    ["heading", "paragraph", "paragraph", "list", "table", "code"]
)
PARTS = st.lists(
    st.tuples(KINDS, st.one_of(JAPANESE, ENGLISH, ANY), st.integers(1, 4), st.integers(0, 1)),
    max_size=12,
)


def laid_out(parts: list[tuple[BlockKind, str, int, int]], paged: bool) -> Extraction:
    layout = Layout()
    page = 1
    for kind, text, level, turn in parts:
        page += turn
        layout.add(
            text, kind, level=level if kind == "heading" else 0, page=page if paged else None
        )
    return layout.extraction()


def visible(text: str) -> str:
    return "".join(normalize(text).split())


@settings(max_examples=150, deadline=None)
@given(PARTS, st.integers(16, 120), st.booleans())
def test_nothing_is_lost_and_budgets_hold(
    parts: list[tuple[BlockKind, str, int, int]], max_tokens: int, paged: bool
) -> None:
    extraction = laid_out(parts, paged)
    chunks = cut(extraction, Chunking(max_tokens=max_tokens), COUNTER)
    covered = bytearray(len(extraction.text))
    last_end = 0
    for index, chunk in enumerate(chunks):
        assert chunk.index == index
        assert chunk.text == extraction.text[chunk.start : chunk.end]
        assert chunk.normalized_text == normalize(chunk.text) != ""
        assert chunk.start >= last_end, "without overlap chunks follow each other"
        last_end = chunk.end
        covered[chunk.start : chunk.end] = b"\1" * (chunk.end - chunk.start)
        whole = f"{normalize(chunk.heading)}\n{chunk.normalized_text}"
        assert chunk.tokens == COUNTER.count([whole if chunk.heading else chunk.normalized_text])[0]
        assert chunk.tokens <= max_tokens or len(chunk.text) == 1
    headings = " ".join(chunk.heading for chunk in chunks)
    for block in extraction.blocks:
        here = [chunk for chunk in chunks if chunk.start < block.end and chunk.end > block.start]
        assert all(chunk.page == block.page for chunk in here), "never across pages"
        if block.kind == "heading" and not here:
            continue  # carried by the chunks below it; see the test of headings
        missing = "".join(
            char
            for place, char in enumerate(extraction.text[block.start : block.end], block.start)
            if not covered[place]
        )
        assert not visible(missing), f"lost {missing!r} beside {headings!r}"


@settings(max_examples=80, deadline=None)
@given(PARTS, st.integers(16, 60), st.integers(0, 25))
def test_overlap_repeats_and_loses_nothing(
    parts: list[tuple[BlockKind, str, int, int]], max_tokens: int, overlap: int
) -> None:
    extraction = laid_out(parts, paged=False)
    overlap = min(overlap, max_tokens // 2 - 1)
    plain = cut(extraction, Chunking(max_tokens=max_tokens), COUNTER)
    chunks = cut(extraction, Chunking(max_tokens=max_tokens, overlap_tokens=overlap), COUNTER)
    text = extraction.text
    assert visible("".join(text[c.start : c.end] for c in plain)) == visible(
        "".join(
            text[max(c.start, end) : c.end]
            for c, end in zip(chunks, [0, *(c.end for c in chunks)], strict=False)
        )
    )
    for before, after in pairwise(chunks):
        assert before.start < after.start
        assert before.end < after.end
        repeated = text[after.start : before.end] if after.start < before.end else ""
        assert COUNTER.count([normalize(repeated)])[0] <= overlap
        assert after.tokens <= max_tokens or len(after.text) == 1


def cut_text(text: str, *blocks: Block, max_tokens: int = 40, overlap: int = 0) -> list[Chunk]:
    return cut(
        Extraction(text, blocks), Chunking(max_tokens=max_tokens, overlap_tokens=overlap), COUNTER
    )


def test_small_paragraphs_under_one_heading_are_merged_and_headings_separate() -> None:
    layout = Layout()
    layout.add("手引き", "heading", level=1)
    layout.add("経費", "heading", level=2)
    layout.add("短い段落。")
    layout.add("もう一つ。")
    layout.add("休暇", "heading", level=2)
    layout.add("十日ある。")
    chunks = cut(layout.extraction(), Chunking(max_tokens=60), COUNTER)
    assert [(c.heading, c.text) for c in chunks] == [
        ("手引き > 経費", "短い段落。\n\nもう一つ。"),
        ("手引き > 休暇", "十日ある。"),
    ]


def test_a_heading_over_nothing_is_kept_as_text() -> None:
    layout = Layout()
    layout.add("Title", "heading", level=1)
    layout.add("Empty", "heading", level=2)
    layout.add("Next", "heading", level=2)
    layout.add("Body.")
    layout.add("Last", "heading", level=1)
    chunks = cut(layout.extraction(), Chunking(), COUNTER)
    assert [(c.heading, c.text) for c in chunks] == [
        ("Title", "Empty"),
        ("Title > Next", "Body."),
        ("", "Last"),
    ]


def test_a_long_heading_leaves_half_of_the_budget_to_the_text() -> None:
    layout = Layout()
    for level in range(1, 5):
        layout.add(f"level {level} " + "of a long heading " * 4, "heading", level=level)
    layout.add("word " * 100)
    chunks = cut(layout.extraction(), Chunking(max_tokens=20), COUNTER)
    assert all(chunk.tokens <= 20 for chunk in chunks)
    assert all("level" in chunk.heading for chunk in chunks)


def test_sentences_stay_whole_and_a_block_that_fits_is_not_begun_early() -> None:
    layout = Layout()
    first = "One two three four five six seven eight."
    second = "Nine ten eleven. Twelve thirteen fourteen. Fifteen sixteen."
    layout.add(first)
    layout.add(second)
    chunks = cut(layout.extraction(), Chunking(max_tokens=18), COUNTER)
    assert [chunk.text for chunk in chunks] == [first, second]


def test_overlap_is_whole_sentences() -> None:
    text = "".join(f"これは文の{index}番です。" for index in "一二三四五六七八九")
    chunks = cut_text(text, Block(0, len(text)), max_tokens=30, overlap=12)
    assert len(chunks) > 2
    for before, after in pairwise(chunks):
        repeated = text[after.start : before.end]
        assert repeated.startswith("これは")
        assert repeated.endswith("です。")


def test_tables_are_cut_between_rows() -> None:
    rows = [f"行{index} | 値{index} | 備考" for index in range(20)]
    text = "\n".join(rows)
    chunks = cut_text(text, Block(0, len(text), "table"), max_tokens=30)
    assert len(chunks) > 1
    assert [row for chunk in chunks for row in chunk.text.splitlines()] == rows


def test_pages_are_never_joined() -> None:
    layout = Layout()
    layout.add("Short.", page=1)
    layout.add("Also short.", page=2)
    chunks = cut(layout.extraction(), Chunking(), COUNTER)
    assert [(chunk.page, chunk.text) for chunk in chunks] == [(1, "Short."), (2, "Also short.")]


def test_a_decomposed_character_is_not_cut_apart() -> None:
    text = "か\u3099" * 200  # が in two code points, without any boundary
    chunks = cut_text(text, Block(0, len(text)), max_tokens=16)
    assert "".join(chunk.text for chunk in chunks) == text
    assert all(not chunk.text.startswith("\u3099") for chunk in chunks)
    assert all(set(chunk.normalized_text) == {"が"} for chunk in chunks)


@pytest.mark.parametrize(
    "text",
    ["あ" * 1_000_000, "word " * 200_000, "x" * 1_000_000, "文です。" * 250_000, " " * 1_000_000],
    ids=["kana", "words", "one-word", "sentences", "blank"],
)
def test_a_million_characters_in_one_line_are_cut(text: str) -> None:
    # A quadratic scan would run into the suite's time-out.
    chunks = cut_text(text, Block(0, len(text)), max_tokens=200)
    assert all(chunk.tokens <= 200 and len(chunk.text) <= 4_000 for chunk in chunks)
    assert bool(chunks) == bool(text.strip())
