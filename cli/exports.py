"""The file of an exported collection: gzip over lines of JSON (`gateway.records`).

The file is a row of gzip members (RFC 1952, section 2.2), and each but the last ends with a whole
document and is on disk before the next is begun. So a transfer that broke off, however it did, goes
on after the last whole member. It grows as FILE.part, and has its own name once it is whole.
"""

import fcntl
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cli.console import Failure
from gateway import records

MEMBER_BYTES = 1024 * 1024
"""Bytes before compression after which a member ends with the document."""
_READ_BYTES = 256 * 1024
_LEVEL = 3
"""Of compression: vectors hardly shrink, texts mostly by this."""
_GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Mark:
    """How far whole documents reach."""

    offset: int = 0
    """Bytes of the file."""
    last: str = ""
    """The last document's id."""
    documents: int = 0
    chunks: int = 0


class ExportWriter:
    """A file that grows by lines of an export, and may be taken up again."""

    def __init__(self, path: Path) -> None:
        """Raises:
        Failure: FILE exists, or another export writes it.
        """
        if path.exists():
            raise Failure(f"{path} exists already.", code="file_exists")
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT, 0o600)
        self._file: BinaryIO = os.fdopen(descriptor, "r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise Failure(f"Another export writes {self._part}.", code="file_in_use") from None
        self.header: dict[str, Any] | None = None
        self.mark = Mark()
        """What is whole and on disk."""
        self._open = Mark()
        self._missing = 0
        """Chunks that the document opened last still lacks."""
        self._member: Any = None
        self._raw = 0
        self._take_up()

    def __enter__(self) -> "ExportWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def documents(self) -> int:
        """Whole documents, those that are not on disk yet included."""
        return self._open.documents

    def _take_up(self) -> None:
        """Find the last whole member of what an earlier run left."""
        try:
            for record, _, end in _parts(self._file):
                if record is None:
                    self.mark = self._open = _at(self._open, end)
                elif record["type"] == records.END:
                    break
                else:
                    self._note(record)
        except (records.RecordError, KeyError, TypeError, ValueError):
            pass  # from there on it is written again
        if not self.mark.offset:
            self.header = None
        self.rewind()

    def restart(self) -> None:
        """Forget everything."""
        self.header = None
        self.mark = Mark()
        self.rewind()

    def rewind(self) -> None:
        """Forget what is not whole."""
        self._file.seek(self.mark.offset)
        self._file.truncate()
        self._open, self._missing, self._member, self._raw = self.mark, 0, None, 0

    def write(self, record: dict[str, Any], line: bytes) -> bool:
        """Add a line; answers whether a document is whole with it.

        Raises:
            RecordError: it does not follow the one before.
        """
        self._note(record)
        self._put(line)
        whole = not self._missing
        if whole and (self._raw >= MEMBER_BYTES or record["type"] == records.HEADER):
            self._end_member()
        return whole and record["type"] == records.CHUNKS

    def finish(self) -> Mark:
        """Write the last record and give the file its name."""
        if self._missing:
            raise records.RecordError("the last document is not whole")
        whole = self._open
        end = {"type": records.END, "documents": whole.documents, "chunks": whole.chunks}
        self._put(records.dump(end))
        self._end_member()
        os.replace(self._part, self._path)
        return self.mark

    def _note(self, record: dict[str, Any]) -> None:
        """Count a record. Raises RecordError when it is out of place."""
        kind, at = record["type"], self._open
        if kind == records.HEADER and self.header is None:
            self.header = record
        elif kind == records.DOCUMENT and not self._missing:
            self._missing = int(record["chunks"])
            self._open = Mark(at.offset, str(record["id"]), at.documents, at.chunks)
        elif kind == records.CHUNKS and 0 < len(record["chunks"]) <= self._missing:
            self._missing -= len(record["chunks"])
            done = not self._missing
            chunks = at.chunks + len(record["chunks"])
            self._open = Mark(at.offset, at.last, at.documents + done, chunks)
        elif kind != records.END:
            raise records.RecordError("the record is out of place")

    def _put(self, line: bytes) -> None:
        if self._member is None:
            self._member = zlib.compressobj(_LEVEL, wbits=_GZIP)
        self._file.write(self._member.compress(line))
        self._raw += len(line)

    def _end_member(self) -> None:
        self._file.write(self._member.flush())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.mark = self._open = _at(self._open, self._file.tell())
        self._member, self._raw = None, 0


def _at(mark: Mark, offset: int) -> Mark:
    return Mark(offset, mark.last, mark.documents, mark.chunks)


def read_records(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The records of a whole file, each with its line.

    Raises:
        Failure: the file is damaged or not whole, saying where.
    """
    number = missing = documents = chunks = 0
    ended = False
    try:
        with path.open("rb") as file:
            for record, line, _ in _parts(file):
                if record is None:
                    continue
                number += 1
                kind = record["type"]
                if ended or (number == 1) != (kind == records.HEADER):
                    raise records.RecordError("the record is out of place")
                if kind == records.DOCUMENT and not missing:
                    missing = int(record["chunks"])
                    documents += 1
                elif kind == records.CHUNKS and 0 < len(record["chunks"]) <= missing:
                    missing -= len(record["chunks"])
                    chunks += len(record["chunks"])
                elif kind == records.END:
                    ended = (record["documents"], record["chunks"]) == (documents, chunks)
                    if missing or not ended:
                        raise records.RecordError("records are missing before it")
                elif kind != records.HEADER:
                    raise records.RecordError("the record is out of place")
                yield record, line
    except (records.RecordError, KeyError, TypeError, ValueError) as error:
        why = str(error) if isinstance(error, records.RecordError) else "it is no record"
        raise Failure(
            f"{path} is damaged at record {number or 1}: {why}.", code="file_damaged"
        ) from None
    if not ended:
        raise Failure(
            f"{path} is not a whole export; it ends after record {number}.", code="file_incomplete"
        )


def _parts(file: BinaryIO) -> Iterator[tuple[dict[str, Any] | None, bytes, int]]:
    """Records with their lines; and None with the offset where a gzip member ends.

    Raises:
        RecordError: from here on the file is no such thing.
    """
    file.seek(0)
    offset = 0
    rest = file.read(_READ_BYTES)
    while rest:
        reader = zlib.decompressobj(_GZIP)
        text = bytearray()
        while not reader.eof:
            if not rest:
                raise records.RecordError("the file breaks off")
            try:
                text += reader.decompress(rest)
            except zlib.error:
                raise records.RecordError("the compression is damaged") from None
            offset += len(rest) - len(reader.unused_data)
            rest = reader.unused_data or file.read(_READ_BYTES)
            end = text.rfind(b"\n") + 1
            for line in bytes(text[:end]).split(b"\n")[:-1]:
                yield records.load(line), line + b"\n", offset
            del text[:end]
            if len(text) > records.MAX_LINE_BYTES:
                raise records.RecordError("a line is too long")
        if text:
            raise records.RecordError("a line breaks off")
        yield None, b"", offset
