"""What the analysers take for the same word."""

import threading

import pytest

from services.retrieve.adapters.morphemes import MorphemesAnalyzer, installed
from services.retrieve.adapters.terms import TermsAnalyzer

needs_dictionary = pytest.mark.skipif(not installed(), reason="the extra japanese is missing")
ANALYZERS = [TermsAnalyzer, pytest.param(MorphemesAnalyzer, marks=needs_dictionary)]


@pytest.fixture(params=ANALYZERS)
def analyzer(request):
    one = request.param()
    one.start()
    return one


def shared(analyzer, query, text, language="ja"):
    """How many of a query's terms a text has."""
    terms = analyzer.document(text, language, {}).indices
    return len(set(analyzer.query(query, language).indices) & set(terms))


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("ｻｰﾊﾞｰ", "サーバーを再起動する"),  # half-width kana
        ("サーバ", "サーバーを再起動する"),  # with and without the long vowel's mark
        ("サーバー", "新しいサーバの設定"),
        ("か\u3099くせい", "がくせい証を見せる"),  # decomposed (NFD)
        ("ＡＰＩ", "the APIs of the gateway"),  # full-width, plural
        ("HPA設定", "KubernetesのHPA設定について"),
        ("kubernetes", "KubernetesのHPA設定について"),
        ("設定", "KubernetesのHPA設定について"),
        ("scheduling", "The scheduler schedules pods"),
    ],
)
def test_variants_meet(analyzer, query, text):
    wanted = analyzer.query(query, "ja").indices
    assert wanted
    assert shared(analyzer, query, text) >= 1


def test_mixed_text_gives_terms_of_both(analyzer):
    query = analyzer.query("KubernetesのHPA設定", "ja")
    for part in ("Kubernetes", "HPA", "設定"):
        assert set(analyzer.query(part, "ja").indices) <= set(query.indices)


def test_longer_texts_weigh_less_by_their_own_average(analyzer):
    text = "rivers and mountains"
    short = analyzer.document(text, "en", {"en": (2.0, 1.0)[: len(analyzer.lengths(text))]})
    long = analyzer.document(text, "en", {"en": (200.0, 1.0)[: len(analyzer.lengths(text))]})
    assert short.indices == long.indices
    assert max(short.values) < max(long.values)


@needs_dictionary
def test_the_dictionary_unites_spellings():
    analyzer = MorphemesAnalyzer()
    assert shared(analyzer, "附属", "付属の学校") > shared(TermsAnalyzer(), "附属", "付属の学校")
    particles = analyzer.query("は が を に です ました", "ja")
    assert not particles.indices


@needs_dictionary
def test_long_texts_and_threads():
    analyzer = MorphemesAnalyzer()
    text = "東京都の人口は約一千四百万人です。" * 3000  # more than the tokenizer takes at once
    analyzer.document("東京", "ja", {})
    vectors: list[object] = []
    threads = [
        threading.Thread(target=lambda: vectors.append(analyzer.document(text, "ja", {})))
        for _ in range(2)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert vectors[0] == vectors[1]
    assert analyzer.document("東京" * 60_000, "ja", {}).indices


@needs_dictionary
def test_its_id_names_the_dictionary():
    assert MorphemesAnalyzer().id.startswith("morphemes@1-sudachidict_core-2")
    assert TermsAnalyzer().id == "terms@1"
