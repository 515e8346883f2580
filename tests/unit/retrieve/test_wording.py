import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieve.adapters.morphemes import MorphemesAnalyzer, installed
from services.retrieve.adapters.terms import TermsAnalyzer
from services.retrieve.ports import Clause, SparseVector
from services.retrieve.wording import FIELDS, MAX_CLAUSES, Operator, Wording, parse, word_query

NOTHING = SparseVector((), ())


@pytest.mark.parametrize(
    ("text", "plain", "words", "operators"),
    [
        ("rolling update", "rolling update", "rolling update", ()),
        ('a "rolling x" b', "a rolling x b", "a b", (Operator("rolling x", "", True),)),
        ("title:probes x", "probes x", "x", (Operator("probes", "title"),)),
        ("Heading:Probes", "Probes", "", (Operator("Probes", "heading"),)),
        ('body:"a b"', "a b", "", (Operator("a b", "body", True),)),
        ("“東京都 庁舎” の", "東京都 庁舎 の", "の", (Operator("東京都 庁舎", "", True),)),
        ("title:東京都", "東京都", "", (Operator("東京都", "title"),)),
    ],
)  # fmt: skip
def test_operators_are_taken_out(text, plain, words, operators):
    assert parse(text) == Wording(plain, words, operators)


@pytest.mark.parametrize(
    "text",
    [
        'a 5" pipe', "at 10:30", "http://host/x", "title: of a thing", "subtitle:x", "author:me",
        "untitle:x", "", '"', ":", "a (b OR c) AND NOT [d TO e]~2^ *?", "title:",
    ],
)  # fmt: skip
def test_what_is_no_operator_is_a_word(text):
    assert parse(text) == Wording(text, text)


@pytest.mark.parametrize("text", ['""', '" "', 'title:""', '"" ""'])
def test_empty_operators_ask_nothing(text):
    assert parse(text).operators == ()


def test_many_operators_become_words():
    wording = parse(" ".join(f'"p{n} q"' for n in range(MAX_CLAUSES + 3)))
    assert len(wording.operators) == MAX_CLAUSES
    assert wording.words == "p16 q p17 q p18 q"


_PIECES = st.sampled_from(
    ['"', "“", "”", "title:", "HEADING:", "body:", ":", "(", ")", "*", "~", "^", "[", "]", "\\",
     " ", "\n", "AND", "NOT", "-", "+", "東京", "の", "ｶﾞ", "x", "\0", "\ud800", "the", "'"]
)  # fmt: skip
RUBBISH = st.one_of(st.text(max_size=80), st.lists(_PIECES, max_size=25).map("".join))
ANALYZERS = [TermsAnalyzer, *([MorphemesAnalyzer] if installed() else [])]


@pytest.mark.parametrize("analyzer_class", ANALYZERS)
def test_no_text_raises(analyzer_class):
    analyzer = analyzer_class()

    @given(RUBBISH)
    def check(text):
        wording = parse(text)
        assert all(one.field in ("", *FIELDS) and one.text for one in wording.operators)
        vector = analyzer.query(wording.plain, "en")
        asked = word_query(wording, analyzer, vector, vector)
        assert all(one.words or one.bigrams for one in asked.clauses)
        assert all(weight > 0 for _, weight in (*asked.words, *asked.bigrams))

    check()


def test_words_are_analysed_and_weighted_as_the_vector_is():
    analyzer = TermsAnalyzer()
    wording = parse('updates updates probes title:Nodes "the rolling updates"')
    before = analyzer.query(wording.plain, "en")
    after = SparseVector(before.indices, tuple(value * 0.5 for value in before.values))
    asked = word_query(wording, analyzer, before, after)
    assert dict(asked.words) == {"updat": 1.0, "probe": 0.5}
    assert asked.clauses == (
        Clause("title", ("node",), (), False),
        Clause("", ("roll", "updat"), (), True),
    )


def test_phrases_of_function_words_ask_nothing():
    asked = word_query(parse('"of the" x'), TermsAnalyzer(), NOTHING, NOTHING)
    assert asked.clauses == ()
