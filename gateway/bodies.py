"""What every route depends on: who calls, with which scopes, and a body that is validated.

Bodies are read here and not by FastAPI: orjson refuses what JSON does not allow (NaN, lone
surrogates, bottomless nesting), and one object names the field at fault.
"""

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ValidationError

from gateway.errors import unsupported_content_type
from gateway.exchange import Call
from gateway.middleware import exchange_of
from gateway.state import State, state_of
from services.runtime.deadlines import Budget
from services.runtime.errors import InvalidArgument, RagmeshError

M = TypeVar("M", bound=BaseModel)

_NUL_ESCAPE = b"\\u0000"


class Needs:
    """Dependency: the verified caller, with these scopes."""

    def __init__(self, *scopes: str, ingest: bool = False) -> None:
        """Args:
        scopes: all of them are needed.
        ingest: give the request the budget of a call with documents.
        """
        self.scopes = scopes
        self._ingest = ingest

    async def __call__(self, request: Request) -> Call:
        """Raises:
        Unauthenticated: no token, or not a valid one.
        PermissionDenied: the token lacks a scope.
        """
        state: State = state_of(request.app)
        principal = state.authenticator.authenticate(request.headers.get("authorization"))
        principal.require(*self.scopes)
        settings = state.settings
        seconds = settings.ingest_budget if self._ingest else settings.request_budget
        return Call(principal, Budget(seconds), exchange_of(request.scope))


class JsonBody(Generic[M]):
    """Dependency: the request's JSON body as a model."""

    def __init__(self, model: type[M]) -> None:
        self.model = model

    async def __call__(self, request: Request) -> M:
        """Raises:
        InvalidArgument: the body is no JSON object, or not the model's.
        """
        content_type = request.headers.get("content-type", "")
        if not is_json(content_type):
            raise unsupported_content_type("Send the body as content-type application/json.")
        return parse(self.model, await request.body())


def is_json(content_type: str) -> bool:
    """``application/json`` or ``application/…+json``, with or without parameters."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


def parse(model: type[M], body: bytes) -> M:
    """A body as a model.

    Raises:
        InvalidArgument: INVALID_JSON, or as `refusal` says.
    """
    value = loads(body)
    if not isinstance(value, dict):
        raise InvalidArgument("INVALID_JSON", "The body must be a JSON object.")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise refusal(error) from None


def loads(text: bytes | str, name: str = "body") -> Any:
    """JSON, strictly.

    Raises:
        InvalidArgument: INVALID_JSON; NUL_CHARACTER, which no text needs and stores refuse.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(
            "INVALID_JSON",
            f"The {name} is not valid JSON: {error.msg} (line {error.lineno}, "
            f"column {error.colno}).",
            field=None if name == "body" else name,
        ) from None
    escaped = text if isinstance(text, bytes) else text.encode()
    if _NUL_ESCAPE in escaped:
        for path, leaf in _strings(value, ""):
            if "\0" in leaf:
                raise InvalidArgument(
                    "NUL_CHARACTER", f"{path} holds a NUL character.", field=path or None
                )
    return value


def refusal(error: ValidationError) -> RagmeshError:
    """The first thing that is wrong with a body, in words."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = _path(first["loc"])
    if first["type"] == "extra_forbidden":
        return InvalidArgument("UNKNOWN_FIELD", f"Unknown field: {path}.", field=path)
    if first["type"] == "missing":
        return InvalidArgument("FIELD_REQUIRED", f"{path} is required.", field=path)
    said = first["msg"].removeprefix("Value error, ")
    said = f"{said[:1].lower()}{said[1:]}"
    message = f"{path}: {said}." if path else f"{said}."
    return InvalidArgument("FIELD_INVALID", message, field=path or None)


def _path(location: tuple[int | str, ...]) -> str:
    """``documents[3].text`` from pydantic's location, without the names of union members."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() or "-" in part or "." in part or not path:
            if _is_union_tag(part):
                continue
            path += f".{part}" if path else part
    return path


def _is_union_tag(part: str) -> bool:
    """pydantic names a union's branch in the location: ``str``, ``list[str]``, ``TextPart``."""
    return part in {"str", "int", "float", "bool", "dict"} or "[" in part or part[:1].isupper()


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            where = f"{path}.{key}" if path else key
            yield where.replace("\0", "\\u0000"), key
            yield from _strings(inner, where)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _strings(inner, f"{path}[{index}]")
