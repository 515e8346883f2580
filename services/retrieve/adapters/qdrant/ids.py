"""Names of points: made by every replica alike, without asking another.

A version is 96 bits, 48 of the time in milliseconds and 48 at random, so that replicas never
choose the same and later versions are greater. A chunk's point is a UUID of its version and its
index. A position, as `Store.scan` counts, is that UUID as a number.
"""

import secrets
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

_INDEX_BITS = 32
_RANDOM_BITS = 48
_SPACE = uuid.UUID("6f0d9a52-5a3e-5c55-9d6b-7a1d3c1f2b90")
"""Of names in the catalogue; never changes."""


def new_version() -> int:
    return int(time.time() * 1000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)


def text_of(version: int) -> str:
    """A version as payloads have it: 24 hexadecimal digits, in the order of the numbers."""
    return f"{version:024x}"


def version_of(position: int) -> int:
    return position >> _INDEX_BITS


def index_of(position: int) -> int:
    return position & ((1 << _INDEX_BITS) - 1)


def position(version: int, index: int) -> int:
    return version << _INDEX_BITS | index


def positions(version: int, chunks: int) -> range:
    return range(position(version, 0), position(version, chunks))


def point(place: int) -> str:
    """The point at a position."""
    return str(uuid.UUID(int=place))


def place(point_id: object) -> int:
    """The position of a point."""
    return uuid.UUID(str(point_id)).int


def record(*names: str) -> str:
    """A point of the catalogue: the same for the same names."""
    return str(uuid.uuid5(_SPACE, "\0".join(names)))


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in parts of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
