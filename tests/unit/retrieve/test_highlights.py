"""Spans in the original text."""

import pytest

from services.retrieve.adapters.terms import TermsAnalyzer
from services.retrieve.highlights import fold, highlight, query_terms
from services.text.normalize import normalize


def term_ids(text):
    return TermsAnalyzer().query(text, "und").indices


def marked(query, text):
    """The marked words and sentences of a text."""
    query = normalize(query)
    terms = query_terms(query, dict.fromkeys(term_ids(query), 1.0), term_ids)
    found = highlight(text, terms, term_ids)
    return (
        [text[one.start : one.end] for one in found.terms],
        [text[one.start : one.end] for one in found.sentences],
    )


@pytest.mark.parametrize(
    ("query", "text", "words"),
    [
        ("running foxes", "A Fox runs. FOXES ran.", ["Fox", "runs", "FOXES"]),
        ("the of", "The end of it.", []),
        ("grpc-status", "Read grpc-status, or the status.", ["grpc-status", "status"]),
        ("café", "Cafe\u0301 au lait, Ｃａｆé", ["Cafe\u0301", "Ｃａｆé"]),
        ("kubernetes", "Kuber\u00adnetes runs", ["Kuber\u00adnetes"]),
        ("ﬁnal oﬃce", "The final office.", ["final", "office"]),
        ("東京都の人口", "人口は東京都で最大。", ["人口", "東京都"]),
        ("トウキョウ", "ﾄｳｷｮｳ と東京", ["ﾄｳｷｮｳ"]),
        ("ガス", "天然か\u3099ス、カ\u3099ス、ｶﾞｽ", ["カ\u3099ス", "ｶﾞｽ"]),
        ("KubernetesのHPA設定", "KubernetesではHPAを設定する", ["Kubernetes", "HPA", "設定"]),
        ("price €5", "😀 the price", ["price"]),
        ("", "nothing", []),
        ("fox", "", []),
    ],
)
def test_words(query, text, words):
    assert marked(query, text)[0] == words


def test_sentences_say_most_of_the_query():
    text = "Foxes eat. It rains.\nThe red fox hunts at night. Red is a colour."
    assert marked("red fox hunting", text)[1] == ["The red fox hunts at night."]
    text = "猫は寝る。東京都の人口は多い。人口とは人の数。"
    assert marked("東京都の人口", text)[1] == ["東京都の人口は多い。"]
    assert marked("quantum", text) == ([], [])


def test_a_fold_points_back():
    text = "ｶﾞ①Ⅻ\u200bé"
    folded = fold(text)
    assert folded.text == "ガ1xiié"
    spans = [text[slice(s, e)] for s, e in zip(folded.starts, folded.ends, strict=True)]
    assert spans == ["ｶﾞ", "①", "Ⅻ", "Ⅻ", "Ⅻ", "é"]


def test_long_texts_take_no_long_time():
    words, _ = marked("人口" * 2000, "人口が多い。" * 2000)
    assert len(words) == 2000
