"""ZIP containers (Office files), checked before any parser sees them.

The parser gets a fresh archive with the parts it reads, stored uncompressed: what it sees was
measured here, so a bomb, a lying header, a path outside the archive or an embedded file cannot
reach it.
"""

import io
import re
import zipfile
import zlib
from dataclasses import dataclass

from services.preprocess.refusals import encrypted, over_limit, unreadable

MIB = 1 << 20
_DOCTYPE = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_PROLOGUE_BYTES = 64 * 1024
_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How far an archive may unfold."""

    entries: int = 10_000
    entry_bytes: int = 64 * MIB
    total_bytes: int = 128 * MIB
    ratio: int = 500
    """Uncompressed to compressed size, for entries of more than a mebibyte."""


def open_archive(data: bytes, filename: str) -> zipfile.ZipFile:
    """Open an archive's directory.

    Raises:
        InvalidArgument: UNREADABLE_DOCUMENT, when there is none.
    """
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        raise unreadable(filename, "the file is damaged or cut off") from None


def checked_parts(
    data: bytes, filename: str, wanted: re.Pattern[str], limits: ArchiveLimits
) -> bytes:
    """A fresh archive of the entries whose names match ``wanted``.

    Raises:
        InvalidArgument: UNREADABLE_DOCUMENT (damaged, or XML with a document type declaration,
            which no Office program writes and which entity attacks need), ENCRYPTED_DOCUMENT.
        ResourceExhausted: PARSE_LIMIT, when it would unfold past a limit.
    """
    archive = open_archive(data, filename)
    entries = archive.infolist()
    if len(entries) > limits.entries:
        raise over_limit(filename, f"it holds more than {limits.entries:,} parts")
    if any(entry.flag_bits & 0x1 for entry in entries):
        raise encrypted(filename)
    for entry in entries:
        _check_size(entry.filename, entry.file_size, entry.compress_size, filename, limits)
    target = io.BytesIO()
    total = 0
    names: set[str] = set()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as clean:
        for entry in entries:
            if not wanted.fullmatch(entry.filename) or entry.filename in names:
                continue
            names.add(entry.filename)
            content = _read(archive, entry, filename, limits.total_bytes - total)
            total += len(content)
            if _declares_type(content):
                raise unreadable(filename, "its XML declares a document type, which is not allowed")
            clean.writestr(entry.filename, content)
    return target.getvalue()


def _check_size(
    name: str, size: int, compressed: int, filename: str, limits: ArchiveLimits
) -> None:
    if size > limits.entry_bytes or (size > MIB and size > limits.ratio * max(1, compressed)):
        raise over_limit(
            filename,
            f"a part of it unfolds to {size / MIB:,.0f} MB, "
            f"the most is {limits.entry_bytes / MIB:,.0f} MB",
        )


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, filename: str, left: int) -> bytes:
    """The entry's bytes, measured while they unfold."""
    parts: list[bytes] = []
    size = 0
    try:
        with archive.open(entry) as stream:
            while part := stream.read(_READ_BYTES):
                size += len(part)
                if size > left:
                    raise over_limit(filename, "it unfolds to more than the memory allowed")
                parts.append(part)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError):
        raise unreadable(filename, "the file is damaged or cut off") from None
    return b"".join(parts)


def _declares_type(content: bytes) -> bool:
    # Dropping NULs makes UTF-16 look like ASCII.
    return _DOCTYPE.search(content[:_PROLOGUE_BYTES].replace(b"\0", b"")) is not None
