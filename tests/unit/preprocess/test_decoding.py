"""Encodings: Japanese ones above all, without a hint, with one, and damaged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.preprocess.decoding import charset_of, decode

JAPANESE = (
    "経費精算の手引き。経費は翌月5日までに申請してください。\n"
    "ポート番号は8000です。「設定」を開き、カタカナと漢字を確かめます。\n"
) * 4
ENGLISH = "The gateway answers on port 8000. Its settings are read once.\n" * 4
RUSSIAN = "Шлюз отвечает на порту 8000. Настройки читаются один раз при запуске.\n" * 6


@pytest.mark.parametrize(
    "encoding",
    [
        "utf-8",
        "utf-8-sig",
        "cp932",
        "euc_jp",
        "iso2022_jp",
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "utf-32",
    ],
)
@pytest.mark.parametrize(
    "text", [JAPANESE, JAPANESE[:30], ENGLISH + JAPANESE], ids=["long", "short", "mixed"]
)
def test_japanese_without_a_hint(text: str, encoding: str) -> None:
    decoded = decode(text.encode(encoding))
    assert decoded.text == text
    assert decoded.warnings == ()
    assert not decoded.is_binary


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "utf-16", "utf-16-le", "utf-16-be"])
def test_english_without_a_hint(encoding: str) -> None:
    assert decode(ENGLISH.encode(encoding)).text == ENGLISH


def test_other_languages_by_likelihood_and_by_declaration() -> None:
    assert decode(RUSSIAN.encode("cp1251")).text == RUSSIAN
    assert decode("naïve café".encode("cp1252"), declared="iso-8859-1").text == "naïve café"
    assert decode(RUSSIAN.encode("koi8-r"), declared="KOI8-R").text == RUSSIAN


@pytest.mark.parametrize(
    "head",
    [
        '<meta charset="Shift_JIS">',
        "<meta http-equiv='Content-Type' content='text/html; charset=x-sjis'>",
        "<!-- " + "x" * 5_000 + " --><meta charset=shift_jis>",
    ],
)
def test_html_declares_its_charset(head: str) -> None:
    page = f"<html><head>{head}</head><body>①髙島屋</body></html>"
    assert decode(page.encode("cp932"), html=True).text == page


def test_a_wrong_declaration_does_not_spoil_utf8() -> None:
    page = '<meta charset="Shift_JIS"><p>日本語</p>'
    assert decode(page.encode(), html=True).text == page


@pytest.mark.parametrize("encoding", ["cp932", "euc_jp", "utf-8"])
def test_broken_bytes_are_replaced_with_a_warning(encoding: str) -> None:
    data = bytearray(JAPANESE.encode(encoding))
    data[41] = 0xFF
    decoded = decode(bytes(data))
    assert decoded.replaced
    assert "could not be read" in decoded.warnings[0]
    assert decoded.text.endswith(JAPANESE[-60:])


def test_binary_is_told() -> None:
    assert decode(bytes(range(32)) * 40).is_binary


@given(st.binary(max_size=400), st.booleans(), st.text(max_size=20))
def test_nothing_fails(data: bytes, html: bool, declared: str) -> None:
    decode(data, html=html, declared=declared)


def test_codecs_that_are_not_for_text_are_ignored() -> None:
    for label in ("hex", "zip", "base64", "rot13", "idna", "undefined", "unicode_escape", "utf-7"):
        decode(b"\xff\xfe0" * 21, declared=label)
        decode(f'<meta charset="{label}">'.encode() + b"\xe9", html=True)


def test_charset_of_a_media_type() -> None:
    assert charset_of('text/plain; Charset="UTF-8"') == "UTF-8"
    assert charset_of("text/plain") == ""
