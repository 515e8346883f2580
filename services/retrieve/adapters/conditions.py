"""Filters as engines want them, and metadata laid out for them.

Qdrant's engines match numbers and strings by value but take a boolean for the number 1, and their
paths cannot name every key that JSON can. So metadata is laid out for filtering: every scalar
under a key made of its type and the hash of its path, lists as lists, and a string that is a date
or a time also as Unix seconds, because engines read dates differently. A `Dialect` says how one
engine spells the few conditions that remain.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from services.retrieve.access import EVERYTHING
from services.retrieve.filters import METADATA_PREFIX, instant, instants
from services.retrieve.ports import Attributes, Bounds, Condition, Filter, Scalar

METADATA = "metadata"
ACCESS = "access"


class Dialect(Protocol):
    """An engine's conditions. A field that is a list matches when one of its members does."""

    def group(self, must: Sequence[Any], must_not: Sequence[Any], should: Sequence[Any]) -> Any:
        """All of `must`, none of `must_not`, one of `should` when it is not empty."""

    def any_of(self, path: str, values: Sequence[str]) -> Any:
        """The field is one of these strings."""

    def numbers(self, path: str, bounds: Bounds) -> Any:
        """The field is a number within these bounds."""

    def empty(self, path: str) -> Any:
        """The field is not there."""

    def points(self, points: frozenset[int]) -> Any:
        """The point is one of these."""


def translate(
    dialect: Dialect,
    filter_: Filter | None,
    *,
    languages: Sequence[str] | None = None,
    hidden: frozenset[int] = frozenset(),
    readable: Attributes | None = None,
) -> Any:
    """A filter in an engine's own values, or None when everything may be found.

    The arguments are the members of `services.retrieve.adapters.points.Allowed`.
    """
    must: list[Any] = []
    if filter_ is not None:
        must.append(_group(dialect, filter_))
    if languages is not None:
        must.append(dialect.any_of("language", list(languages)))
    if readable is not None and EVERYTHING not in readable:
        free = [dialect.empty(ACCESS)]
        listed = [dialect.any_of(ACCESS, list(readable))] if readable else []
        must.append(dialect.group((), (), free + listed))
    must_not = [dialect.points(hidden)] if hidden else []
    return dialect.group(must, must_not, ()) if must or must_not else None


def _group(dialect: Dialect, filter_: Filter) -> Any:
    return dialect.group(
        [_condition(dialect, one) for one in filter_.must],
        [_condition(dialect, one) for one in filter_.must_not],
        [_condition(dialect, one) for one in filter_.should],
    )


def _condition(dialect: Dialect, condition: Condition) -> Any:
    if condition.group is not None:
        return _group(dialect, condition.group)
    name = condition.field
    if condition.equals is not None:
        return _equals(dialect, name, condition.equals)
    if condition.any_of is not None:
        return dialect.group((), (), [_equals(dialect, name, one) for one in condition.any_of])
    if condition.range is not None:
        return dialect.numbers(_path(name, "n"), condition.range)
    if condition.datetime_range is None:
        raise ValueError("an unchecked filter reached the engine")
    return dialect.numbers(_path(name, "t"), instants(condition.datetime_range))


def _equals(dialect: Dialect, name: str, value: Scalar) -> Any:
    if isinstance(value, bool):
        return dialect.any_of(_path(name, "b"), [_boolean(value)])
    if isinstance(value, str):
        return dialect.any_of(_path(name, "s"), [value])
    # As a range: 3 equals 3.0.
    return dialect.numbers(_path(name, "n"), Bounds(gte=float(value), lte=float(value)))


def _path(name: str, kind: str) -> str:
    path = name.removeprefix(METADATA_PREFIX)
    return name if path == name else f"{METADATA}.{_facet(path, kind)}"


def _facet(path: str, kind: str) -> str:
    """The key of a metadata path's values of one kind: s(tring), n(umber), b(oolean) or t(ime)."""
    return kind + hashlib.blake2b(path.encode(), digest_size=12).hexdigest()


def facet_keys(path: str) -> dict[str, bool]:
    """Where a payload may hold a metadata path's values, and whether these are numbers."""
    return {f"{METADATA}.{_facet(path, kind)}": kind in "nt" for kind in "snbt"}


def facets(metadata_json: str) -> dict[str, list[str | float]]:
    """Metadata as it lies in a payload, under `METADATA`."""
    laid_out: dict[str, list[str | float]] = {}
    for path, value in _scalars(json.loads(metadata_json or "{}"), ""):
        if isinstance(value, bool):
            laid_out.setdefault(_facet(path, "b"), []).append(_boolean(value))
        elif isinstance(value, str):
            laid_out.setdefault(_facet(path, "s"), []).append(value)
            if (seconds := instant(value)) is not None:
                laid_out.setdefault(_facet(path, "t"), []).append(seconds)
        else:
            laid_out.setdefault(_facet(path, "n"), []).append(value)
    return laid_out


def _scalars(value: Any, path: str) -> Iterator[tuple[str, Scalar]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _scalars(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _scalars(inner, path)
    elif value is not None:
        yield path, value


def _boolean(value: bool) -> str:
    return "true" if value else "false"
