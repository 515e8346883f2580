"""Frames between the servicer's process and the engine's: a length, then msgpack.

Values of `services.retrieve.ports` travel as themselves; lists arrive as tuples. A value is a map
of one pair: the number of its type, and its fields. So no other map has numbers for keys.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

import msgpack  # type: ignore[import-untyped]

from services.retrieve import ports
from services.runtime.errors import ERRORS, RagmeshError, Unknown

_HEADER = struct.Struct("<I")
HEADER_BYTES = _HEADER.size

_TYPES = (
    ports.ArmWeights,
    ports.Bounds,
    ports.Candidate,
    ports.Chunk,
    ports.Clause,
    ports.Collection,
    ports.CollectionKey,
    ports.Condition,
    ports.Document,
    ports.EncodedChunk,
    ports.FieldTerms,
    ports.Filter,
    ports.IndexedChunk,
    ports.NewCollection,
    ports.Published,
    ports.SparseVector,
    ports.StoreQuery,
    ports.StoredChunk,
    ports.TenantContents,
    ports.TimeBounds,
    ports.WordQuery,
)
_ERROR = len(_TYPES)
_NUMBERS = {cls: number for number, cls in enumerate(_TYPES)}
_FIELDS = tuple(attrgetter(*(field.name for field in fields(cls))) for cls in _TYPES)
"""Functions that give a value's fields; each type has at least two."""


def pack(message: Any) -> bytes:
    """A frame, header included."""
    body = bytes(msgpack.packb(message, default=_reduce))
    return _HEADER.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """The number of bytes that follow a header."""
    return int(_HEADER.unpack(header)[0])


def unpack(body: bytes | bytearray) -> Any:
    """The message of a frame's body."""
    return msgpack.unpackb(body, object_pairs_hook=_revive, use_list=False, strict_map_key=False)


class Frames:
    """Messages out of a stream that arrives in pieces."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, piece: bytes) -> Iterator[Any]:
        """The messages that a piece completes."""
        self._rest += piece
        start = 0
        while (begin := start + HEADER_BYTES) <= len(self._rest):
            (size,) = _HEADER.unpack_from(self._rest, start)
            if begin + size > len(self._rest):
                break
            start = begin + size
            yield unpack(self._rest[begin:start])
        del self._rest[:start]


def _reduce(value: Any) -> Any:
    number = _NUMBERS.get(type(value))
    if number is not None:
        return {number: _FIELDS[number](value)}
    if isinstance(value, RagmeshError):
        return {_ERROR: (value.code, value.reason, value.message, value.field, value.retry_after)}
    raise TypeError(f"{type(value).__name__} does not travel between the processes")


def _revive(pairs: Sequence[tuple[Any, Any]]) -> Any:
    if len(pairs) != 1 or type(pairs[0][0]) is not int:
        return dict(pairs)
    number, values = pairs[0]
    if number != _ERROR:
        return _TYPES[number](*values)
    code, reason, message, field, retry_after = values
    return ERRORS.get(code, Unknown)(reason, message, field=field, retry_after=retry_after)
