"""Which filters are well formed."""

from collections.abc import Iterator
from datetime import UTC, datetime

from services.retrieve.ports import Condition, Filter, TimeBounds
from services.runtime.errors import InvalidArgument

FIELDS = frozenset({"document_id", "source", "title", "page", "heading", "language"})
METADATA_PREFIX = "metadata."
MAX_DEPTH = 8
MAX_CONDITIONS = 256


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
    if bounds is not None and all(
        getattr(bounds, name) is None for name in ("gt", "gte", "lt", "lte")
    ):
        raise _invalid(where, "A range needs at least one bound.")
    if condition.any_of is not None and not condition.any_of:
        raise _invalid(where, "any_of needs at least one value.")
    if condition.datetime_range is not None:
        for name in ("gt", "gte", "lt", "lte"):
            if (text := getattr(condition.datetime_range, name)) is not None:
                _parse_time(text, f"{where}.datetime_range.{name}")


def is_field(name: str) -> bool:
    """Whether a filter may name this field."""
    if name in FIELDS:
        return True
    path = name.removeprefix(METADATA_PREFIX)
    return path != name and all(path.split("."))


def utc_bounds(bounds: TimeBounds) -> TimeBounds:
    """The same bounds in UTC; a time without a zone is taken for UTC."""

    def to_utc(text: str | None) -> str | None:
        return None if text is None else _parse_time(text, "filter").isoformat()

    return TimeBounds(to_utc(bounds.gt), to_utc(bounds.gte), to_utc(bounds.lt), to_utc(bounds.lte))


def _parse_time(text: str, where: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(text)
        zoned = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
        return zoned.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _invalid(where, f"{text[:100]!r} is not an RFC 3339 date or time.") from None


def _invalid(where: str, message: str) -> InvalidArgument:
    return InvalidArgument("FILTER_INVALID", message, field=where)
