"""Records of an exported collection: lines of JSON that carry a check of their own.

    {"type": "header", "format": "ragmesh-collection", "version": 1, "encoder": …, "sum": …}
    {"type": "document", "id": …, "chunks": 3, …, "sum": …}
    {"type": "chunks", "first": 0, "chunks": [{"text", "vector", …}], "sum": …}
    {"type": "end", "documents": 1, "chunks": 3, "sum": …}

`sum`, always the last member, is the first half of the SHA-256, in hex, of the line's bytes before
``,"sum":``. docs/transfers.md describes the format. Standard library only: the operator's command
reads this module too.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

FORMAT = "ragmesh-collection"
VERSION = 1
MAX_LINE_BYTES = 8 * 1024 * 1024
HEADER, DOCUMENT, CHUNKS, END = "header", "document", "chunks", "end"

_SUM = b',"sum":"'
_DIGITS = 32


class RecordError(ValueError):
    """A line is not what was written."""


def dump(record: Mapping[str, Any]) -> bytes:
    """A record as a line, its check and the newline included."""
    body = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()[:-1]
    return body + _SUM + _digest(body) + b'"}\n'


def check(line: bytes) -> None:
    """Verify a line that carries a check.

    Raises:
        RecordError: it is another line than was written.
    """
    body, mark, rest = line.rstrip(b"\r\n").rpartition(_SUM)
    if mark and rest != _digest(body) + b'"}':
        raise RecordError("the line was changed after it was written")


def load(line: bytes) -> dict[str, Any]:
    """A line of a file as a record; its check must be there.

    Raises:
        RecordError: the line is none, or another than was written.
    """
    if _SUM not in line:
        raise RecordError("the line carries no check")
    check(line)
    try:
        record = json.loads(line)
    except ValueError:
        raise RecordError("the line is no JSON") from None
    if not isinstance(record, dict) or not isinstance(record.get("type"), str):
        raise RecordError("the line is no record")
    return record


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:_DIGITS].encode()
