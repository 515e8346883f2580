"""What servers that speak OpenAI's protocol say when they fail, in our terms."""

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, NamedTuple

from services.runtime.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    RagmeshError,
    ResourceExhausted,
    Unavailable,
)


class Meaning(NamedTuple):
    """The class, reason and message of a failure; the server's own text stays in the engine."""

    kind: type[RagmeshError]
    reason: str
    message: str


REFUSED = Meaning(InvalidArgument, "PARAMETER_INVALID", "The engine refused the request.")
TOO_LONG = Meaning(
    InvalidArgument, "CONTEXT_LENGTH_EXCEEDED", "The request is longer than the model's context."
)
UNAUTHENTICATED = Meaning(
    FailedPrecondition,
    "ENGINE_AUTHENTICATION_FAILED",
    "The engine refused the mesh's key; the operator has to set a valid one.",
)
NO_MODEL = Meaning(NotFound, "MODEL_NOT_FOUND", "The engine does not have this model.")
WRONG_ADDRESS = Meaning(
    Unavailable, "ENGINE_UNAVAILABLE", "The engine's address serves no such route."
)
LIMITED = Meaning(ResourceExhausted, "ENGINE_RATE_LIMITED", "The engine's rate limit is reached.")
OVERLOADED = Meaning(Unavailable, "ENGINE_OVERLOADED", "The engine is overloaded.")
DOWN = Meaning(Unavailable, "ENGINE_UNAVAILABLE", "The engine is not available.")
LATE = Meaning(DeadlineExceeded, "ENGINE_TIMEOUT", "The engine did not answer in time.")
BAD = Meaning(Internal, "ENGINE_BAD_ANSWER", "The engine's answer could not be read.")
UNSUPPORTED = Meaning(
    InvalidArgument, "PARAMETER_UNSUPPORTED", "The engine does not support this request."
)

STATUSES: Mapping[int, Meaning] = {
    400: REFUSED,
    401: UNAUTHENTICATED,
    402: LIMITED,
    403: UNAUTHENTICATED,
    404: WRONG_ADDRESS,
    405: WRONG_ADDRESS,
    408: LATE,
    409: OVERLOADED,
    413: TOO_LONG,
    415: REFUSED,
    422: REFUSED,
    429: LIMITED,
    499: DOWN,
    500: DOWN,
    501: UNSUPPORTED,
    502: DOWN,
    503: OVERLOADED,
    504: LATE,
    529: OVERLOADED,
}
"""HTTP status -> meaning, where the body says nothing more exact."""

CODES: Mapping[str, Meaning] = {
    "context_length_exceeded": TOO_LONG,
    "insufficient_quota": LIMITED,
    "invalid_api_key": UNAUTHENTICATED,
    "model_not_found": NO_MODEL,
    "notfounderror": NO_MODEL,
    "not_found_error": NO_MODEL,
    "overloaded_error": OVERLOADED,
    "rate_limit_error": LIMITED,
    "rate_limit_exceeded": LIMITED,
    "server_error": DOWN,
    "internal_server_error": DOWN,
    "internalservererror": DOWN,
    "service_unavailable": OVERLOADED,
    "unsupported_parameter": UNSUPPORTED,
    "unsupported_value": UNSUPPORTED,
}
"""`code` or `type` of the error object, in lower case -> meaning."""

_TOO_LONG = re.compile(r"maximum context length|context (?:length|window)|too many tokens", re.I)
_FIELD = re.compile(r"[A-Za-z0-9_.\[\]]{1,80}")


def error_of(
    status: int, body: bytes | str, headers: Mapping[str, str] | None = None
) -> RagmeshError:
    """The error for an HTTP answer, or for an error event inside a stream (status 200)."""
    error = _error_object(body)
    meaning = _meaning(status, error)
    param = error.get("param")
    field = param if isinstance(param, str) and _FIELD.fullmatch(param) else None
    if meaning is NO_MODEL:
        field = "model"
    elif meaning is TOO_LONG:
        field = "messages"
    message = meaning.message
    if field and meaning in (REFUSED, UNSUPPORTED):
        message = f"{message[:-1]}: {field}."
    return meaning.kind(
        meaning.reason, message, field=field, retry_after=_retry_after(headers or {})
    )


def failure(meaning: Meaning, retry_after: float | None = None) -> RagmeshError:
    return meaning.kind(meaning.reason, meaning.message, retry_after=retry_after)


def _meaning(status: int, error: Mapping[str, Any]) -> Meaning:
    text = str(error.get("message", ""))
    if status in (200, 400, 413, 422, 500) and _TOO_LONG.search(text):
        return TOO_LONG
    if status not in (401, 403):
        for key in ("code", "type"):
            meaning = CODES.get(str(error.get(key, "")).lower())
            if meaning is not None:
                return meaning
    code = error.get("code")
    if status == 200:  # inside a stream the status is in the body, if anywhere
        status = code if isinstance(code, int) else 500
    if status == 404 and "model" in text.lower():
        return NO_MODEL
    if status in STATUSES:
        return STATUSES[status]
    if 400 <= status < 500:
        return REFUSED
    return DOWN if status >= 500 else BAD


def _error_object(body: bytes | str) -> Mapping[str, Any]:
    """The error object of a body: ``{"error": {...}}``, ``{"error": "text"}``,
    ``{"detail": ...}``, a bare object, or nothing."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(parsed, dict):
        return {}
    error = parsed.get("error", parsed.get("detail", parsed))
    return error if isinstance(error, dict) else {"message": str(error)}


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or `retry-after` (seconds or a date)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time()
            except ValueError:
                continue
        if 0 <= seconds < 86_400:
            return seconds
    return None
