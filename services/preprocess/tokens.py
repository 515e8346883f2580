"""An estimate of tokens for when no tokenizer is named."""

import re
from collections.abc import Sequence

_PIECE = re.compile(
    r"(?P<word>[^\W\d_\u0e00-\uffff]+)|(?P<number>\d+)|(?P<wide>[\u0e00-\uffff])|(?P<mark>\S)"
)
_LETTERS_PER_TOKEN = 5
_DIGITS_PER_TOKEN = 3


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
