"""Language detection by script: Japanese, English, or undetermined."""

import re

_KANA = re.compile(r"[\u3041-\u309f\u30a1-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f\u3005\u3006]")
_LATIN = re.compile(r"[A-Za-z]")
_LATIN_MARKED = re.compile(r"[\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]")
_OTHER = re.compile(r"[\u0370-\u1fff\u2c00-\u2dff\ua000-\ud7ff]")
# Long texts are judged by this many characters, taken from three places.
_SAMPLE = 3_000
# Kanji weigh more than letters: a Japanese sentence about Kubernetes has more letters than kana.
_LETTERS_PER_KANJI = 6
# Share of marked letters above which Latin text is not taken for English.
_MARKED_SHARE = 0.05


def detect_language(text: str) -> str:
    """Return ``ja``, ``en`` or ``und`` for ``text``.

    Japanese is told by kana, or by kanji alone as in 「東京都庁」; Chinese is therefore taken for
    Japanese, which suits the character analysis that both need. English is any mostly unmarked
    Latin text. Costs microseconds; never raises.
    """
    if text.isascii():
        return "en" if _LATIN.search(text) else "und"
    if len(text) > _SAMPLE:
        third, middle = _SAMPLE // 3, len(text) // 2
        text = text[:third] + text[middle : middle + third] + text[-third:]
    kana = len(_KANA.findall(text))
    han = len(_HAN.findall(text))
    latin = len(_LATIN.findall(text))
    marked = len(_LATIN_MARKED.findall(text))
    other = len(_OTHER.findall(text))
    japanese = kana + han
    if japanese and japanese * _LETTERS_PER_KANJI >= latin + marked and japanese > other:
        return "ja"
    if other > latin + marked or marked > _MARKED_SHARE * (latin + marked):
        return "und"
    return "en" if latin else "und"
