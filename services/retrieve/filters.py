"""Which filters are well formed."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from services.retrieve.ports import Bounds, Condition, Filter, TimeBounds
from services.runtime.errors import InvalidArgument

FIELDS = frozenset({"document_id", "source", "title", "page", "heading", "language"})
METADATA_PREFIX = "metadata."
MAX_DEPTH = 8
MAX_CONDITIONS = 256
_BOUNDS = ("gt", "gte", "lt", "lte")
_TIME = re.compile(
    r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?([Zz]|[+-]\d{2}:\d{2})?)?"
)


def check_filter(filter_: Filter, path: str = "filter") -> None:
    """Check a filter's fields, tests, depth and size.

    Raises:
        InvalidArgument: FILTER_INVALID, naming the place as ``filter.must[0].field``.
    """
    for count, (where, condition, depth) in enumerate(_walk(filter_, path, 1), 1):
        if count > MAX_CONDITIONS:
            raise _invalid(path, f"A filter has at most {MAX_CONDITIONS} conditions.")
        if depth > MAX_DEPTH:
            raise _invalid(where, f"Groups nest at most {MAX_DEPTH} deep.")
        _check(condition, where)


def _walk(filter_: Filter, path: str, depth: int) -> Iterator[tuple[str, Condition, int]]:
    for name in ("must", "must_not", "should"):
        for index, condition in enumerate(getattr(filter_, name)):
            where = f"{path}.{name}[{index}]"
            yield where, condition, depth
            if condition.group is not None:
                yield from _walk(condition.group, f"{where}.group", depth + 1)


def _check(condition: Condition, where: str) -> None:
    tests = {
        name: test
        for name in ("equals", "any_of", "range", "datetime_range", "group")
        if (test := getattr(condition, name)) is not None
    }
    if len(tests) != 1:
        raise _invalid(
            where, "A condition needs one of equals, any_of, range, datetime_range and group."
        )
    if condition.group is not None:
        return  # its own conditions are walked
    if not is_field(condition.field):
        known = ", ".join(sorted(FIELDS))
        raise _invalid(
            f"{where}.field",
            f"{condition.field[:100]!r} is not a field; fields are {known} and metadata.<key>.",
        )
    bounds = condition.range or condition.datetime_range
    if bounds is not None and all(getattr(bounds, name) is None for name in _BOUNDS):
        raise _invalid(where, "A range needs at least one bound.")
    if condition.any_of is not None and not condition.any_of:
        raise _invalid(where, "any_of needs at least one value.")
    if condition.datetime_range is not None:
        _check_times(condition.field, condition.datetime_range, where)


def _check_times(field: str, bounds: TimeBounds, where: str) -> None:
    if not field.startswith(METADATA_PREFIX):
        raise _invalid(
            f"{where}.field", f"{field!r} holds no dates; the metadata may: metadata.<key>."
        )
    for name in _BOUNDS:
        text = getattr(bounds, name)
        if text is not None and instant(text) is None:
            raise _invalid(
                f"{where}.datetime_range.{name}",
                f"{text[:100]!r} is not an RFC 3339 date or time.",
            )


def is_field(name: str) -> bool:
    """Whether a filter may name this field."""
    if name in FIELDS:
        return True
    path = name.removeprefix(METADATA_PREFIX)
    return path != name and all(path.split("."))


def instant(text: str) -> float | None:
    """Unix seconds of an RFC 3339 date or time, None for any other text.

    A date stands for its first moment; a time without a zone is taken for UTC.
    """
    if not _TIME.fullmatch(text):
        return None
    try:
        parsed = datetime.fromisoformat(text.upper())
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def instants(bounds: TimeBounds) -> Bounds:
    """Bounds in Unix seconds; the bounds were checked."""
    return Bounds(
        **{name: instant(text) for name in _BOUNDS if (text := getattr(bounds, name)) is not None}
    )


def _invalid(where: str, message: str) -> InvalidArgument:
    return InvalidArgument("FILTER_INVALID", message, field=where)
