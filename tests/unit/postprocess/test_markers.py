import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.postprocess.markers import resolve

KNOWN = {1, 2, 3}


@pytest.mark.parametrize(
    ("text", "shown", "order"),
    [
        ("A fact [1].", "A fact [1].", (1,)),
        ("A fact [2][1]. More [2].", "A fact [2][1]. More [2].", (2, 1)),
        ("A fact [1, 2].", "A fact [1][2].", (1, 2)),
        ("A fact [1-3].", "A fact [1][2][3].", (1, 2, 3)),
        ("事実です。【1】", "事実です。[1]", (1,)),
        ("事実です［１、２］。", "事実です[1][2]。", (1, 2)),
        ("事実です。[資料1]", "事実です。[1]", (1,)),
        ("A fact [Passage 2].", "A fact [2].", (2,)),
        ("A fact [^3].", "A fact [3].", (3,)),
        ("A fact [7].", "A fact.", ()),
        ("A fact [1][9] here.", "A fact [1] here.", (1,)),
        ("A fact [1, 9].", "A fact [1].", (1,)),
        ("In [2024] it was.", "In [2024] it was.", ()),
        ("See [1](https://x).", "See [1](https://x).", ()),
        ("[1]: https://x", "[1]: https://x", ()),
        ("Take items[0] first [1].", "Take items[0] first [1].", (1,)),
        ("`a[1]` is code [2].", "`a[1]` is code [2].", (2,)),
        ("```py\na[1]\n```\nText [1].", "```py\na[1]\n```\nText [1].", (1,)),
        ("~~~\na[1] never closed", "~~~\na[1] never closed", ()),
        ("", "", ()),
    ],
)
def test_markers_are_found_and_normalised(text, shown, order):
    resolved = resolve(text, KNOWN)
    assert (resolved.text, resolved.order) == (shown, order)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One [1]. Two [2].", [("One.", (1,)), ("Two.", (2,))]),
        ("One. [1] Two. [2]", [("One.", (1,)), ("Two.", (2,))]),
        ("一です。[1]二です。[2][3]", [("一です。", (1,)), ("二です。", (2, 3))]),
        ("一です[1]。二です[2]。", [("一です。", (1,)), ("二です。", (2,))]),
        ("[1] One.\n[2] Two.", [("One.", (1,)), ("Two.", (2,))]),
        ("- One [1]\n- Two [2]", [("- One", (1,)), ("- Two", (2,))]),
        ("One. Two [1] and more [1].", [("One.", ()), ("Two and more.", (1,))]),
        ("[1]", []),
    ],
)
def test_markers_belong_to_their_sentences(text, expected):
    assert [(s.text, s.markers) for s in resolve(text, KNOWN).sentences] == expected


FRAGMENTS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "[1]",
                " [2]",
                "[1, 9]",
                "【3】",
                "［２］",
                "[0]",
                "`",
                "```",
                "\n",
                "。",
                ". ",
                "x",
                "[",
                "]",
            ]
        ),
        st.text(max_size=8),
    ),
    max_size=30,
).map("".join)


@given(FRAGMENTS)
def test_whatever_a_model_writes(text):
    resolved = resolve(text, KNOWN)
    assert set(resolved.order) <= KNOWN
    carried = {n for s in resolved.sentences for n in s.markers}
    assert carried <= set(resolved.order)
    if resolved.sentences:
        assert carried == set(resolved.order)
    for number in resolved.order:
        assert f"[{number}]" in resolved.text


@given(FRAGMENTS)
def test_nothing_but_markers_goes(text):
    strip = re.compile(
        r"[\s\[\]【】［］〔〕\d,、，;；‐–~〜^-]|passages?|sources?|docs?|documents?", re.I
    )
    assert strip.sub("", resolve(text, KNOWN).text) == strip.sub("", text)


def test_a_long_answer_takes_no_time():
    text = "A fact is here [1]. " * 8_000
    assert len(resolve(text, KNOWN).sentences) == 8_000
