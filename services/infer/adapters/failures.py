"""What engines' failures mean to our callers, and tables from vendors' words to meanings."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, NamedTuple

from services.infer.lengths import too_long
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
    retry_after: float | None = None
    """Seconds, where the server names none and a retry helps."""
    field: str | None = None
    """What is at fault, where the server does not say."""


REFUSED = Meaning(InvalidArgument, "PARAMETER_INVALID", "The engine refused the request.")
TOO_LONG = Meaning(
    InvalidArgument, "CONTEXT_LENGTH_EXCEEDED", "The request is longer than the model's context."
)
FILTERED = Meaning(
    InvalidArgument, "CONTENT_FILTERED", "The engine's content filter refused the request."
)
UNAUTHENTICATED = Meaning(
    FailedPrecondition,
    "ENGINE_AUTHENTICATION_FAILED",
    "The engine refused the mesh's key; the operator has to set a valid one.",
)
OUT_OF_QUOTA = Meaning(
    FailedPrecondition,
    "ENGINE_QUOTA_EXCEEDED",
    "The mesh's account with the engine's provider is used up; the operator has to renew it.",
)
NO_MODEL = Meaning(
    NotFound, "MODEL_NOT_FOUND", "The engine does not have this model.", field="model"
)
WRONG_ADDRESS = Meaning(
    Unavailable, "ENGINE_UNAVAILABLE", "The engine's address serves no such route."
)
LIMITED = Meaning(
    ResourceExhausted, "ENGINE_RATE_LIMITED", "The engine's rate limit is reached.", 1.0
)
OVERLOADED = Meaning(Unavailable, "ENGINE_OVERLOADED", "The engine is overloaded.", 1.0)
DOWN = Meaning(Unavailable, "ENGINE_UNAVAILABLE", "The engine is not available.", 1.0)
CUT = Meaning(Unavailable, "ENGINE_UNAVAILABLE", "The engine broke its answer off.", 1.0)
LATE = Meaning(DeadlineExceeded, "ENGINE_TIMEOUT", "The engine did not answer in time.")
BAD = Meaning(Internal, "ENGINE_BAD_ANSWER", "The engine's answer could not be read.")
UNSUPPORTED = Meaning(
    InvalidArgument, "PARAMETER_UNSUPPORTED", "The engine does not support this request."
)

STATUSES: Mapping[int, Meaning] = {
    400: REFUSED,
    401: UNAUTHENTICATED,
    402: OUT_OF_QUOTA,
    403: UNAUTHENTICATED,
    404: WRONG_ADDRESS,
    405: WRONG_ADDRESS,
    408: LATE,
    409: OVERLOADED,
    413: TOO_LONG,
    415: REFUSED,
    422: REFUSED,
    424: DOWN,
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

_FIELD = re.compile(r"[A-Za-z0-9_.\[\]]{1,80}")
_MAX_SCAN = 4_000
"""Characters of a server's message that are looked through."""


class VendorError(NamedTuple):
    """What a server said, whatever its shape."""

    message: str = ""
    keys: tuple[str, ...] = ()
    """Its codes and types, the more exact first."""
    field: str | None = None
    status: int | None = None
    """A status in the body, where the answer's own says nothing."""


def parse_error(body: bytes | str) -> VendorError:
    """Read the common shapes: ``{"error": {"message", "type", "param", "code"}}``,
    ``{"error": "text", "error_type": ...}``, ``{"detail": "text" | [{"msg", "loc"}]}``,
    ``{"object": "error", "message", ...}``, or no JSON at all."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return VendorError()
    if not isinstance(parsed, dict):
        return VendorError()
    error = parsed.get("error", parsed.get("detail", parsed))
    if isinstance(error, list) and error and isinstance(error[0], dict):  # FastAPI's validation
        where = [str(part) for part in error[0].get("loc") or () if part != "body"]
        return VendorError(str(error[0].get("msg", "")), (), _field(".".join(where)))
    if not isinstance(error, dict):
        return VendorError(str(error), _keys(parsed.get("error_type"), parsed.get("code")))
    code = error.get("code")
    inner = error.get("innererror")
    inner_code = inner.get("code") if isinstance(inner, dict) else None
    return VendorError(
        str(error.get("message", "")),
        _keys(inner_code, code, error.get("type"), error.get("error_type")),
        _field(error.get("param")),
        code if isinstance(code, int) else None,
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
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


@dataclass(frozen=True, slots=True)
class ErrorTable:
    """A vendor's failures in our terms; what it does not name falls back on `STATUSES`."""

    codes: Mapping[str, Meaning] = field(default_factory=dict)
    """A code or type of the body, in lower case -> meaning."""
    patterns: tuple[tuple[re.Pattern[str], Meaning], ...] = ()
    """What is searched for in the message, in this order, before the codes count."""
    statuses: Mapping[int, Meaning] = field(default_factory=dict)
    """Statuses that mean something else here than in `STATUSES`."""
    numbers: tuple[re.Pattern[str], ...] = ()
    """Patterns with groups `needed` and `limit`, of messages about the context's length."""
    parse: Callable[[bytes | str], VendorError] = parse_error
    delay: Callable[[Mapping[str, str]], float | None] = retry_after
    """Seconds until a retry, from the answer's headers."""

    def error(
        self, status: int, body: bytes | str = b"", headers: Mapping[str, str] | None = None
    ) -> RagmeshError:
        """The error for an HTTP answer, or for an error event inside a stream (status 200)."""
        said = self.parse(body)
        meaning = self._meaning(status, said)
        if meaning is TOO_LONG:
            return too_long(*self._lengths(said.message))
        field = meaning.field or said.field
        message = meaning.message
        if field and not meaning.field and meaning in (REFUSED, UNSUPPORTED):
            message = f"{message[:-1]}: {field}."
        delay = self.delay(headers or {})
        return meaning.kind(
            meaning.reason,
            message,
            field=field,
            retry_after=meaning.retry_after if delay is None else delay,
        )

    def _meaning(self, status: int, said: VendorError) -> Meaning:
        text = said.message[:_MAX_SCAN]
        if status not in (401, 403):
            for pattern, meaning in self.patterns:
                if pattern.search(text):
                    return meaning
            for key in said.keys:
                if key in self.codes:
                    return self.codes[key]
        if status == 200:  # inside a stream the status is in the body, if anywhere
            status = said.status or 500
        if status == 404 and "model" in text.lower():
            return NO_MODEL
        for table in (self.statuses, STATUSES):
            if status in table:
                return table[status]
        if 400 <= status < 500:
            return REFUSED
        return DOWN if status >= 500 else BAD

    def _lengths(self, message: str) -> tuple[int | None, int | None]:
        for pattern in self.numbers:
            found = pattern.search(message[:_MAX_SCAN])
            if found:
                groups = found.groupdict()
                return _count(groups.get("needed")), _count(groups.get("limit"))
        return None, None


def failure(meaning: Meaning, retry_after: float | None = None) -> RagmeshError:
    return meaning.kind(
        meaning.reason,
        meaning.message,
        retry_after=meaning.retry_after if retry_after is None else retry_after,
    )


def _keys(*values: Any) -> tuple[str, ...]:
    return tuple(str(value).lower() for value in values if value is not None)


def _field(value: Any) -> str | None:
    if isinstance(value, str):
        value = value.removeprefix("body.")
    return value if isinstance(value, str) and _FIELD.fullmatch(value) else None


def _count(digits: str | None) -> int | None:
    return int(float(digits.replace(",", ""))) if digits else None
