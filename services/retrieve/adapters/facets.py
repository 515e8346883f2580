"""A payload's values for filters, one by one, for engines that index them themselves."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from services.retrieve.adapters.conditions import METADATA

_NO_FACETS = frozenset({"text", "normalized_text", "version"})


def facets_of(payload: Mapping[str, Any]) -> Iterator[tuple[str, str | float]]:
    """Paths, as filters name them, with their values; the members of a list one by one."""
    for name, value in payload.items():
        if name == METADATA:
            for facet, values in value.items():
                yield from _members(f"{METADATA}.{facet}", values)
        elif name not in _NO_FACETS:
            yield from _members(name, value)


def _members(path: str, value: Any) -> Iterator[tuple[str, str | float]]:
    for one in value if isinstance(value, list | tuple) else (value,):
        if isinstance(one, str):
            yield path, one
        elif isinstance(one, int | float) and not math.isnan(number := as_float(one)):
            yield path, number


def as_float(number: float) -> float:
    """A number, whole ones beyond all floats as infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
