"""Text out of tokens, for engines that give tokens alone: whole characters, up to a stop text."""

import codecs
from collections.abc import Sequence


class Pieces:
    """The text of one choice. A token may be a part of a character, and a stop text may come in
    several tokens, so what may still become either is held back."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        """Args:
        stops: texts that end the choice and are no part of it.
        """
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False
        """Whether a stop text has come."""

    def add(self, token: bytes) -> str:
        """The text that is certain once this token has come; empty after a stop."""
        return self.add_text(self._decoder.decode(token))

    def add_text(self, text: str) -> str:
        """As `add`, of characters."""
        if self.stopped:
            return ""
        text = self._held + text
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.stopped = True
            self._held = ""
            return text[: min(places)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """What was held back, once no more comes."""
        if self.stopped:
            return ""
        rest = self.add_text(self._decoder.decode(b"", final=True))
        if not self.stopped:
            rest += self._held
        self._held = ""
        return rest


class Growth:
    """What is new in a text that comes whole each time, longer by some tokens."""

    def __init__(self) -> None:
        self._seen = ""

    def of(self, whole: bytes) -> str:
        """What has come since; the beginning of a character, which decoders show as a replacement
        character, waits for its end."""
        text = whole.decode(errors="replace").rstrip("\ufffd")
        new = text[len(self._seen) :]
        if new:
            self._seen = text
        return new


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
