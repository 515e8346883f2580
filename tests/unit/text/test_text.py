"""Normalisation, language, sentences and terms in both languages."""

import itertools
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.text import terms
from services.text.language import detect_language
from services.text.normalize import normalize
from services.text.sentences import split_sentences
from services.text.terms import content_terms


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("ｶﾞｲﾄﾞ", "ガイド"),
        (unicodedata.normalize("NFD", "ガイドブック"), "ガイドブック"),
        ("ＡＢＣ１２３", "ABC123"),
        ("a\u200bb\ufeffc\xad", "abc"),
        ("  a \t b\r\n\r\n\r\nc  ", "a b\nc"),
        ("nul\x00byte", "nulbyte"),
        ("\ud800x", "x"),
        ("plain text", "plain text"),
        ("", ""),
    ],
)
def test_normalize(raw: str, clean: str) -> None:
    assert normalize(raw) == clean


@given(st.text())
def test_normalize_is_idempotent(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Which port does the gateway use?", "en"),
        ("naïve façade of the gateway in a rather long English sentence, is it not so", "en"),
        ("ゲートウェイのポートは?", "ja"),
        ("KubernetesのHPA設定", "ja"),
        ("東京都庁", "ja"),
        ("Où est la bibliothèque après l'été dernier à côté", "und"),
        ("Где находится порт?", "und"),
        ("포트는 무엇입니까?", "und"),
        ("The Japanese word for port (港) is used once in this long English sentence.", "en"),
        ("12345 !?", "und"),
        ("", "und"),
    ],
)
def test_detect_language(text: str, language: str) -> None:
    assert detect_language(text) == language


def sentences(text: str) -> list[str]:
    return [text[span.start : span.end] for span in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Smith paid 3.5 dollars, e.g. in cash. He left.", 2),
        ("J. R. Tolkien wrote it. It sold.", 2),
        ("これは文です。次の文です！三つ目？", ["これは文です。", "次の文です！", "三つ目？"]),
        ("彼は「行く。帰る。」と言った。終わり。", ["彼は「行く。帰る。」と言った。", "終わり。"]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("# Title\n\nFirst line.\n- item one\n- item two", 4),
        ("A line that was wrapped by an editor\ngoes on here. Next.", 2),
        ("版は 0.1.0 です。URL は http://a.b/c です。", 2),
        ("1. First step\n2. Second step", ["1. First step", "2. Second step"]),
        ("English ends.日本語が続く。", 2),
        ("開いた「括弧が閉じない。次の文。", 2),
        ("", []),
        (" \n ", []),
    ],
)
def test_split_sentences(text: str, expected: list[str] | int) -> None:
    got = sentences(text)
    assert (len(got) if isinstance(expected, int) else got) == expected


@given(st.text(alphabet="aB .。!?！「」()\n1-3"))
def test_sentences_cover_everything_once(text: str) -> None:
    spans = split_sentences(text)
    assert all(a.end <= b.start for a, b in itertools.pairwise(spans))
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


@pytest.mark.parametrize("unit", ["「開いた括弧", "word ", "a.b ", "文。", "x\n", "(", "."])
def test_split_sentences_reads_a_million_characters(unit: str) -> None:
    # A quadratic scan would run into the suite's time-out.
    assert split_sentences(unit * (1_000_000 // len(unit)))


def test_content_terms() -> None:
    assert content_terms("Which ports do the services listen on?") == ["port", "servic", "listen"]
    assert "grpc-status" in content_terms("the grpc-status header")
    assert "status" in content_terms("the grpc-status header")
    assert content_terms("東京都") == ["東京", "京都"]
    assert "ゲートウェイ" in content_terms("ゲートウェイのポートはどこですか")
    assert "どこですか" not in content_terms("ゲートウェイのポートはどこです")
    assert set(content_terms("ｹﾞｰﾄｳｪｲ")) == set(content_terms("ゲートウェイ"))


@given(st.text())
def test_content_terms_never_fail(text: str) -> None:
    assert all(content_terms(text))


RARE_STEMS = [f"{first}{second}r" for first in ("bra", "conn", "dist", "flu") for second in "aeiou"]
RARE_ENDINGS = ["izational", "fulness", "ousli", "ements", "ingly", "ications", "ed", "ies"]


def test_terms_are_the_same_in_many_threads() -> None:
    words = [f"{stem}{ending}" for stem in RARE_STEMS for ending in RARE_ENDINGS]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(content_terms, words))
    finally:
        sys.setswitchinterval(interval)
    terms._stem.cache_clear()
    assert found == [content_terms(word) for word in words]
