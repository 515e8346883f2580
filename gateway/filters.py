"""The filter language of REST, turned into filter.proto.

    {"language": "ja", "source": ["a.pdf", "b.pdf"], "metadata.year": {"gte": 2020},
     "not": {"tags": "draft"}, "any": [{"page": 1}, {"title": "Overview"}]}

All members hold together. A value stands for equality, a list for any of its members, an object
with `gt`, `gte`, `lt`, `lte` for a range of numbers, or of dates and times as RFC 3339 writes them
(`2026-11-21`, `2026-11-21T09:00:00+09:00`), compared with strings of that form in the metadata; a
time without a zone is taken for UTC. `not` holds a filter, or a list
of them, of which none may hold; `any` a list of filters of which at least one must; `all` a list
of which every one must. A bare name that is no field of a chunk means a key of the metadata.
"""

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from google.protobuf.struct_pb2 import ListValue

from gateway.freeform import check_depth, to_value
from ragmesh.retrieve.v1 import filter_pb2
from services.runtime.errors import InvalidArgument

FIELDS = frozenset({"document_id", "source", "title", "page", "heading", "language"})
"""Fields of a chunk; any other name is a key of the document's metadata."""
BOUNDS = frozenset({"gt", "gte", "lt", "lte"})
MAX_CONDITIONS = 256
MAX_NESTING = 8

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})?)?")


def to_filter(filter: Mapping[str, Any], param: str = "filter") -> filter_pb2.Filter:
    """Args:
    filter: the JSON object.
    param: how errors call it.

    Raises:
        InvalidArgument: FILTER_INVALID, naming the member.
    """
    check_depth(filter, param)
    made = _filter(filter, param, 0)
    if _count(made) > MAX_CONDITIONS:
        _refuse(param, f"has more than {MAX_CONDITIONS} conditions")
    return made


def _filter(filter: Mapping[str, Any], param: str, depth: int) -> filter_pb2.Filter:
    if depth > MAX_NESTING:
        _refuse(param, f"is nested deeper than {MAX_NESTING} levels")
    made = filter_pb2.Filter()
    for name, test in filter.items():
        where = f"{param}.{name}"
        match name:
            case "not":
                made.must_not.extend(_groups(test, where, depth))
            case "any":
                if not isinstance(test, list) or not test:
                    _refuse(where, "must be a list of filters, and not an empty one")
                groups = _groups(test, where, depth)
                if made.should or len(groups) > 1:
                    made.should.extend(groups)
                else:
                    made.must.extend(groups)
            case "all":
                made.must.extend(_groups(test, where, depth))
            case _:
                made.must.append(_condition(name, test, where))
    return made


def _groups(test: Any, where: str, depth: int) -> list[filter_pb2.Condition]:
    filters = test if isinstance(test, list) else [test]
    groups = []
    for inner in filters:
        if not isinstance(inner, dict) or not inner:
            _refuse(where, "must hold filters: objects with at least one member")
        groups.append(filter_pb2.Condition(group=_filter(inner, where, depth + 1)))
    return groups


def _condition(name: str, test: Any, where: str) -> filter_pb2.Condition:
    if not name or name == "metadata." or "\0" in name:
        _refuse(where, "must name a field")
    known = name in FIELDS or name.startswith("metadata.")
    condition = filter_pb2.Condition(field=name if known else f"metadata.{name}")
    if isinstance(test, dict):
        _range(condition, test, where)
    elif isinstance(test, list):
        if not test or not all(isinstance(value, str | int | float) for value in test):
            _refuse(where, "must list strings, numbers or booleans, at least one")
        condition.any_of.CopyFrom(ListValue(values=[to_value(value) for value in test]))
    elif isinstance(test, str | int | float):
        condition.equals.CopyFrom(to_value(test))
    else:
        _refuse(where, "must be a string, a number, a boolean, a list or a range")
    return condition


def _range(condition: filter_pb2.Condition, test: dict[str, Any], where: str) -> None:
    if not test or not test.keys() <= BOUNDS:
        _refuse(where, f"must have bounds among {', '.join(sorted(BOUNDS))}, and nothing else")
    bounds = list(test.values())
    if all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds):
        condition.range.CopyFrom(
            filter_pb2.NumberRange(**{name: float(bound) for name, bound in test.items()})
        )
    elif all(isinstance(bound, str) and _DATE.fullmatch(bound) for bound in bounds):
        condition.datetime_range.CopyFrom(filter_pb2.DatetimeRange(**test))
    else:
        _refuse(where, "must have bounds that are all numbers, or all dates as in RFC 3339")


def _count(filter: filter_pb2.Filter) -> int:
    conditions = [*filter.must, *filter.must_not, *filter.should]
    groups = [condition.group for condition in conditions if condition.HasField("group")]
    return len(conditions) + sum(_count(group) for group in groups)


def _refuse(where: str, what: str) -> NoReturn:
    raise InvalidArgument("FILTER_INVALID", f"{where} {what}.", field=where)
