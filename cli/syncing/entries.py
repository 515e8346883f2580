"""What a source has, and how it is read."""

import hashlib
import mimetypes
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import BinaryIO, Protocol

from cli.documents import EXTENSIONS

MAX_ID_CHARACTERS = 512
MAX_BYTES = 50_000_000
"""Of a document, as the mesh takes it unless it is told otherwise."""
KEPT_BYTES = 1 << 30
"""Of what was fetched to compare it, kept on disk for as long as it may have to be sent."""
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that becomes a document."""

    id: str
    """The document's id: the path below the source, or the address."""
    name: str
    """A file name that tells the format."""
    place: str
    """Where the source finds it."""
    stamp: str = ""
    """Changes when the content does, at no cost; empty where only reading it tells."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that does not."""

    id: str
    reason: str
    failed: bool = False
    """Whether it may be one all the same, so that its document must stay."""


@dataclass(slots=True)
class Content:
    """What an entry holds. Whoever gets it closes `file`."""

    file: BinaryIO
    """At its beginning."""
    digest: str
    """SHA-256 hex."""
    size: int
    kind: str
    """Media type, with a charset where it was declared."""
    name: str
    """A file name that tells the format."""
    stamp: str
    """What the entry's content can be told by next time; empty where it cannot be trusted yet."""


@dataclass(frozen=True, slots=True)
class Known:
    """What was seen of an entry the last time."""

    stamp: str
    digest: str


class NotRead(Exception):
    """An entry could not be read."""

    def __init__(self, reason: str, *, gone: bool = False, fatal: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.gone = gone
        """Whether it is not there any more, as if it had not been listed."""
        self.fatal = fatal
        """Whether that is a failure; else it is left out as what cannot become a document."""


class Source(Protocol):
    """Where documents come from. `open` is called from several threads."""

    @property
    def name(self) -> str:
        """Under what name its documents remember it."""

    @property
    def complete(self) -> bool:
        """Whether `entries` has told all that there is; only then may documents be deleted."""

    def entries(self) -> Iterator[Entry | Skipped]:
        """What there is. Raises Failure when there is no such source."""

    def open(self, entry: Entry, known: Known | None) -> Content | None:
        """Read an entry; None when it still is what is known. Raises NotRead."""

    def close(self) -> None:
        """Let go of everything."""


class Spool:
    """Files on disk for what was fetched, so that it is not fetched twice when it is sent."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="ragmesh-sync-")
        self._kept: dict[str, tuple[Path, Content]] = {}
        self._bytes = 0

    def take(self, id: str) -> Content | None:
        """What was kept under an id; it is kept no longer."""
        kept = self._kept.pop(id, None)
        if kept is None:
            return None
        path, content = kept
        self._bytes -= content.size
        content.file = path.open("rb")
        path.unlink()
        return content

    def keep(self, id: str, content: Content) -> None:
        """Keep what was read for when it is sent, if there is room; closes its file."""
        if self._bytes + content.size <= KEPT_BYTES:
            path = Path(self._folder.name) / hashlib.sha256(id.encode()).hexdigest()
            content.file.seek(0)
            with path.open("wb") as target:
                shutil.copyfileobj(content.file, target, _READ_BYTES)
            self._bytes += content.size
            self._kept[id] = (path, content)
        content.file.close()

    def close(self) -> None:
        self._folder.cleanup()


def digest_of(file: BinaryIO) -> tuple[str, int]:
    """SHA-256 hex and size of a file, which is at its beginning afterwards."""
    digest, size = hashlib.sha256(), 0
    file.seek(0)
    while piece := file.read(_READ_BYTES):
        digest.update(piece)
        size += len(piece)
    file.seek(0)
    return digest.hexdigest(), size


def is_supported(name: str) -> bool:
    """Whether the mesh may read files of this name's kind; whether it does is its own to say."""
    return extension_of(name) in EXTENSIONS


def extension_of(name: str) -> str:
    return PurePosixPath(name).suffix.lower().lstrip(".")


def kind_of(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def problem_of(id: str) -> str:
    """Why a text cannot be a document's id; empty when it can."""
    if len(id) > MAX_ID_CHARACTERS:
        return f"its name is longer than {MAX_ID_CHARACTERS} characters"
    if any(ord(one) < 32 or ord(one) == 127 for one in id):
        return "its name has control characters"
    return ""
