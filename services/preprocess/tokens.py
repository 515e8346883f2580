"""Counting tokens without a tokenizer, or where the tokenizer does not know the language."""

import re
from collections.abc import Collection, Sequence

from services.preprocess.ports import TokenCounter
from services.text.language import detect_language

_PIECE = re.compile(
    r"(?P<word>[^\W\d_\u0e00-\uffff]+)|(?P<number>\d+)|(?P<wide>[\u0e00-\uffff])|(?P<mark>\S)"
)
_LETTERS_PER_TOKEN = 5
_DIGITS_PER_TOKEN = 3
# A Japanese word has about two characters.
_WIDE_PER_WORD = 2


class EstimatedTokens:
    """Tokens by character class: a Latin word is one per five letters begun, a number one per
    three digits, a character of an unspaced or Asian script and any sign one each."""

    def count(self, texts: Sequence[str]) -> list[int]:
        return [_estimate(text) for text in texts]


def _estimate(text: str) -> int:
    total = 0
    for match in _PIECE.finditer(text):
        if match.lastgroup == "word":
            total += -(-len(match[0]) // _LETTERS_PER_TOKEN)
        elif match.lastgroup == "number":
            total += -(-len(match[0]) // _DIGITS_PER_TOKEN)
        else:
            total += 1
    return total


class TokensByLanguage:
    """The tokenizer's count for texts in the languages that it knows, words for all others.

    An encoder that does not represent a language splits it into single characters or unknowns.
    Cutting by that count gives chunks of a sentence or two; and as such text is found by its words
    alone, the encoder's limit does not bind it. Words are one per five Latin letters begun and one
    per two characters of an unspaced script.
    """

    def __init__(self, counter: TokenCounter, languages: Collection[str]) -> None:
        self._counter = counter
        self._languages = frozenset(languages) | {"und"}

    def count(self, texts: Sequence[str]) -> list[int]:
        known = [detect_language(text) in self._languages for text in texts]
        exact = iter(
            self._counter.count(
                [text for text, is_known in zip(texts, known, strict=True) if is_known]
            )
        )
        return [
            next(exact) if is_known else _words(text)
            for text, is_known in zip(texts, known, strict=True)
        ]


def _words(text: str) -> int:
    wide = sum(match.lastgroup in ("wide", "mark") for match in _PIECE.finditer(text))
    return _estimate(text) - wide + -(-wide // _WIDE_PER_WORD)
