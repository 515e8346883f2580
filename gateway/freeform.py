"""JSON whose shape is the client's own, on its way into protobuf and back."""

import math
from collections.abc import Mapping
from typing import Any

import orjson
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from services.runtime.errors import InvalidArgument

MAX_DEPTH = 32
"""Levels of nesting; protobuf's own readers stop at 100 messages, three a level."""


def check_depth(value: Any, name: str) -> None:
    """Raises:
    InvalidArgument: NESTED_TOO_DEEPLY.
    """
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _members(outer)]
        if not level:
            return
    raise InvalidArgument(
        "NESTED_TOO_DEEPLY", f"{name} is nested deeper than {MAX_DEPTH} levels.", field=name
    )


def to_struct(value: Mapping[str, Any], name: str) -> Struct:
    """A JSON object as a Struct.

    Raises:
        InvalidArgument: NESTED_TOO_DEEPLY.
    """
    check_depth(value, name)
    struct = Struct()
    struct.update(dict(value))
    return struct


def to_value(value: Any) -> Value:
    """A string, number or boolean as a Value."""
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, str):
        return Value(string_value=value)
    return Value(number_value=float(value))


def to_json_text(value: Any, name: str) -> str:
    """A JSON value as text.

    Raises:
        InvalidArgument: NESTED_TOO_DEEPLY.
    """
    check_depth(value, name)
    return orjson.dumps(value).decode()


def from_struct(struct: Struct) -> dict[str, Any]:
    """A Struct as a JSON object; whole numbers come back as integers."""
    return {key: from_value(value) for key, value in struct.fields.items()}


def from_value(value: Value) -> Any:
    """A Value as JSON."""
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return _number(value.number_value)
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return _list(value.list_value)
        case _:
            return None


def _members(value: Any) -> list[Any]:
    """The objects and lists directly inside of one."""
    if isinstance(value, dict):
        return [inner for inner in value.values() if isinstance(inner, dict | list)]
    if isinstance(value, list):
        return [inner for inner in value if isinstance(inner, dict | list)]
    return []


def _list(values: ListValue) -> list[Any]:
    return [from_value(value) for value in values.values]


def _number(number: float) -> float | int | None:
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
