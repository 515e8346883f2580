"""A folder of this machine as a source."""

import hashlib
import os
import socket
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from cli.console import Failure
from cli.documents import IGNORED
from cli.syncing.entries import (
    Content,
    Entry,
    Known,
    NotRead,
    Skipped,
    digest_of,
    is_supported,
    kind_of,
    problem_of,
)

_SETTLED_SECONDS = 2.0
"""A file that was written less than this ago may be written again within the same time stamp."""


class FolderSource:
    """Files below a folder. Hidden ones are none; links are followed to files within it."""

    def __init__(self, root: Path, *, alias: str = "", max_bytes: int) -> None:
        """Args:
        root: the folder.
        alias: under what name its documents remember it, wherever it lies; empty for one made
            of this machine's name and the path.
        max_bytes: larger files are left out.

        Raises:
            Failure: it is no folder.
        """
        if not root.is_dir():
            raise Failure(f"{root} is no folder.", code="no_such_source")
        self._root = root
        self._real = root.resolve()
        self._max_bytes = max_bytes
        self._alias = alias
        self._complete = True

    @property
    def name(self) -> str:
        if self._alias:
            return f"folder:{self._alias}"
        # Readers of the documents see this: it tells folders apart, not where they lie.
        place = f"{socket.gethostname()}\0{self._real}".encode("utf-8", "surrogateescape")
        return f"folder:{_text(self._real.name)}#{hashlib.sha256(place).hexdigest()[:10]}"

    @property
    def complete(self) -> bool:
        return self._complete

    def entries(self) -> Iterator[Entry | Skipped]:
        self._complete = True
        seen: set[str] = set()
        for found in self._walk(self._root, ""):
            if isinstance(found, Entry):
                if found.id in seen:
                    # Two names that differ in Unicode's form alone, or in bytes that are no text.
                    yield Skipped(found.id, "another file has the same name, spelled otherwise")
                    continue
                seen.add(found.id)
            yield found

    def _walk(self, folder: Path, prefix: str) -> Iterator[Entry | Skipped]:
        try:
            with os.scandir(folder) as found:
                children = sorted(found, key=lambda one: one.name)
        except OSError as error:
            self._complete = False
            yield Skipped(prefix or ".", f"it cannot be read ({error.strerror})", failed=True)
            return
        for child in children:
            id = unicodedata.normalize("NFC", prefix + _text(child.name))
            if child.name.startswith("."):
                yield Skipped(id, "it is hidden")
            elif child.is_dir(follow_symlinks=False):
                yield from self._walk(Path(child.path), f"{id}/")
            else:
                yield self._file(child, id)

    def _file(self, child: "os.DirEntry[str]", id: str) -> Entry | Skipped:
        if child.is_symlink():
            # What lies within is found under its own name; a link to a folder adds nothing and may
            # lead round in circles.
            target = Path(os.path.realpath(child.path))
            if not target.is_relative_to(self._real):
                return Skipped(id, "it is a link that leaves the folder")
            if not target.is_file():
                return Skipped(id, "it is a link to no file")
        elif not child.is_file():
            return Skipped(id, "it is no file")
        if not is_supported(child.name) or child.name in IGNORED:
            return Skipped(id, "its format is not supported")
        if problem := problem_of(id):
            return Skipped(id, problem)
        try:
            facts = os.stat(child.path)
        except OSError as error:
            return Skipped(id, f"it cannot be read ({error.strerror})", failed=True)
        if facts.st_size > self._max_bytes:
            return Skipped(id, f"it is larger than {self._max_bytes} bytes")
        if not facts.st_size:
            return Skipped(id, "it is empty")
        return Entry(id, _text(child.name), child.path, _stamp(facts))

    def open(self, entry: Entry, known: Known | None) -> Content | None:
        try:
            file = open(entry.place, "rb")  # noqa: SIM115 - whoever gets it closes it
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)
            raise NotRead(f"it cannot be read ({error.strerror})", gone=gone) from None
        facts = os.fstat(file.fileno())
        settled = facts.st_mtime < time.time() - _SETTLED_SECONDS
        digest, size = digest_of(file)
        stamp = _stamp(facts) if settled else ""
        return Content(file, digest, size, kind_of(entry.name), entry.name, stamp)

    def close(self) -> None:
        """Nothing is held."""


def _stamp(facts: os.stat_result) -> str:
    # The time of the last change of the inode too: a file may be put in place with an old mtime.
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"


def _text(name: str) -> str:
    r"""A file name as text; bytes that are no UTF-8 become ``\xNN``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
