"""The processes' log files: opened for them, and followed for what a person should see."""

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

MAX_LOG_BYTES = 20 * 1024 * 1024
"""A log this large is set aside (as `.1`) when its process is started."""
_LAST_LINES = 5
_LOUD = ("ERROR", "CRITICAL")


class Journal:
    """One process's log file. The process writes to the file itself, so that a supervisor's death
    neither loses lines nor breaks a pipe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""
        self._last: deque[str] = deque(maxlen=_LAST_LINES)

    def open(self) -> IO[bytes]:
        """The file for a starting process to append to."""
        if self.path.exists() and self.path.stat().st_size > MAX_LOG_BYTES:
            self.path.replace(self.path.with_suffix(".log.1"))
            self._offset, self._rest = 0, b""
        self._last.clear()
        return self.path.open("ab")

    def errors(self) -> Iterator[str]:
        """Messages of level ERROR and above that were written since the last call."""
        for line in self._new_lines():
            level, text = _read(line)
            self._last.append(text)
            if level in _LOUD:
                yield text

    def last_lines(self) -> list[str]:
        """What the process said last: why it ended, most likely."""
        for _ in self.errors():
            pass  # only read on
        return list(self._last)

    def _new_lines(self) -> Iterator[str]:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            if line.strip():
                yield line.decode("utf-8", "replace")


def _read(line: str) -> tuple[str, str]:
    """Level and message of a JSON line; a line of another kind is its own message."""
    try:
        entry = json.loads(line)
    except ValueError:
        return "", line
    if not isinstance(entry, dict):
        return "", line
    text = entry.get("message") or entry.get("msg") or line
    return str(entry.get("level", "")).upper(), str(text)
