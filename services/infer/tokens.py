"""Token counts without a tokenizer."""

import re

# Kana and kanji are about a token each in the vocabularies of current models; other text is
# about four characters a token.
_WIDE = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\uac00-\ud7af]"
)
_CHARACTERS_PER_TOKEN = 4


def estimate_tokens(text: str) -> int:
    """About how many tokens `text` has; 0 only for an empty text."""
    if not text:
        return 0
    wide = 0 if text.isascii() else len(_WIDE.findall(text))
    narrow = len(text) - wide
    return wide + -(-narrow // _CHARACTERS_PER_TOKEN)
