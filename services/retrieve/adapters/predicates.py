"""Filters as functions, for engines whose candidates are looked at one by one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from services.retrieve.ports import Bounds

Payload = Mapping[str, Any]
Predicate = Callable[[int, Payload], bool]


class Predicates:
    """Conditions as functions of a point and its payload."""

    def group(
        self,
        must: Sequence[Predicate],
        must_not: Sequence[Predicate],
        should: Sequence[Predicate],
    ) -> Predicate:
        return lambda point, given: (
            all(one(point, given) for one in must)
            and not any(one(point, given) for one in must_not)
            and (not should or any(one(point, given) for one in should))
        )

    def any_of(self, path: str, values: Sequence[str]) -> Predicate:
        wanted = frozenset(values)
        return lambda _, given: any(
            isinstance(one, str) and one in wanted for one in _values(given, path)
        )

    def numbers(self, path: str, bounds: Bounds) -> Predicate:
        return lambda _, given: any(
            isinstance(one, int | float) and _within(float(one), bounds)
            for one in _values(given, path)
        )

    def empty(self, path: str) -> Predicate:
        return lambda _, given: not list(_values(given, path))

    def points(self, points: frozenset[int]) -> Predicate:
        return lambda point, _: point in points


def _values(payload: Payload, path: str) -> Iterable[object]:
    """What a payload holds under a path; the members of a list one by one."""
    value: object = payload
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if value is None:
        return ()
    return value if isinstance(value, list) else (value,)


def _within(number: float, bounds: Bounds) -> bool:
    return (
        (bounds.gt is None or number > bounds.gt)
        and (bounds.gte is None or number >= bounds.gte)
        and (bounds.lt is None or number < bounds.lt)
        and (bounds.lte is None or number <= bounds.lte)
    )
