"""Frames between the servicer's process and the engine's: a length, then msgpack.

Values of `services.retrieve.ports` travel as themselves; lists arrive as tuples.
"""

import struct
from dataclasses import fields, is_dataclass
from typing import Any

import msgpack  # type: ignore[import-untyped]

from services.retrieve import ports
from services.runtime.errors import ERRORS, RagmeshError, Unknown

_HEADER = struct.Struct("<I")
HEADER_BYTES = _HEADER.size
_DATACLASS, _ERROR = 1, 2

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
_NUMBERS = {cls: number for number, cls in enumerate(_TYPES)}
_FIELDS = tuple(tuple(field.name for field in fields(cls)) for cls in _TYPES)


def pack(message: Any) -> bytes:
    """A frame, header included."""
    body = _pack(message)
    return _HEADER.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """The number of bytes that follow a header."""
    return int(_HEADER.unpack(header)[0])


def unpack(body: bytes) -> Any:
    """The message of a frame's body."""
    return msgpack.unpackb(
        body, ext_hook=_revive, use_list=False, strict_map_key=False, max_ext_len=len(body)
    )


def _pack(value: Any) -> bytes:
    return bytes(msgpack.packb(value, default=_reduce))


def _reduce(value: Any) -> Any:
    if is_dataclass(value):
        number = _NUMBERS[type(value)]
        parts = [number, *(getattr(value, name) for name in _FIELDS[number])]
        return msgpack.ExtType(_DATACLASS, _pack(parts))
    if isinstance(value, RagmeshError):
        parts = [value.code, value.reason, value.message, value.field, value.retry_after]
        return msgpack.ExtType(_ERROR, _pack(parts))
    raise TypeError(f"{type(value).__name__} does not travel between the processes")


def _revive(code: int, data: bytes) -> Any:
    first, *rest = unpack(data)
    if code == _DATACLASS:
        return _TYPES[first](*rest)
    reason, message, field, retry_after = rest
    return ERRORS.get(first, Unknown)(reason, message, field=field, retry_after=retry_after)
