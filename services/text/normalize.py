"""Normalisation that index and query share."""

import re
import unicodedata

_SPACE_RUN = re.compile(r"[^\S\n]+")
_BREAK_RUN = re.compile(r" ?\n ?(?:\n ?)*")
# Cc without tab and line breaks, lone surrogates, zero-width characters, byte order marks and
# soft hyphens: invisible, yet they split words for an analyser. Bidirectional controls go too:
# they let a text look other than it is.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069"
    "\ufeff\ud800-\udfff]"
)


def normalize(text: str) -> str:
    """Return the form of ``text`` that is analysed and embedded.

    NFKC (UAX #15) composes decomposed kana, widens half-width kana and narrows full-width
    letters; invisible characters go; runs of white space become one space, or one line break
    where they held one. Idempotent. Never raises.
    """
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x85", "\n")
    text = _INVISIBLE.sub("", text)
    text = unicodedata.normalize("NFKC", text)
    text = text.replace("\u2028", "\n").replace("\u2029", "\n")
    text = _SPACE_RUN.sub(" ", text)
    text = _BREAK_RUN.sub("\n", text).strip()
    # Removing an invisible character can leave two letters side by side that compose.
    return unicodedata.normalize("NFKC", text)
