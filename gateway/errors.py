"""An error's third spelling: HTTP status, headers and the OpenAI error object.

    {"error": {"message": "top_k must be from 1 to 100.", "type": "invalid_request_error",
               "param": "top_k", "code": "top_k_out_of_range"}}

The statuses of the gRPC codes stand in `services/runtime/errors.py`. HTTP knows a few situations
that gRPC has no code for; BY_REASON lists them.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson
from starlette.responses import Response

from services.runtime.errors import InvalidArgument, RagmeshError, ResourceExhausted


class HttpSpelling(NamedTuple):
    """How a reason is told over HTTP."""

    status: int
    type: str
    retry_helps: bool


BY_REASON: Mapping[str, HttpSpelling] = {
    "ROUTE_NOT_FOUND": HttpSpelling(404, "not_found_error", False),
    "METHOD_NOT_ALLOWED": HttpSpelling(405, "invalid_request_error", False),
    "REQUEST_TOO_LARGE": HttpSpelling(413, "invalid_request_error", False),
    "DOCUMENT_TOO_LARGE": HttpSpelling(413, "invalid_request_error", False),
    "PARSE_LIMIT": HttpSpelling(413, "invalid_request_error", False),
    "TOO_MANY_DOCUMENTS": HttpSpelling(413, "invalid_request_error", False),
    "CONTENT_TYPE_UNSUPPORTED": HttpSpelling(415, "invalid_request_error", False),
    "TOO_MANY_COLLECTIONS": HttpSpelling(429, "rate_limit_error", False),
}
"""Reasons whose HTTP status is not their gRPC code's, or that a retry cannot help."""

DEFAULT_RETRY_SECONDS = 1.0
"""What `retry-after` says on a 429 or 503 that names no time."""

# As Kong's jwt plugin answers: no error attribute when there was no token at all.
CHALLENGE = "Bearer"
CHALLENGE_INVALID = 'Bearer error="invalid_token"'


def too_large(reason: str, message: str, *, field: str | None = None) -> RagmeshError:
    """What was sent is over a size limit: 413, and RESOURCE_EXHAUSTED over gRPC."""
    return ResourceExhausted(reason, message, field=field)


def unsupported_content_type(message: str) -> RagmeshError:
    return InvalidArgument("CONTENT_TYPE_UNSUPPORTED", message)


def spelling_of(error: RagmeshError) -> HttpSpelling:
    """Status, type and whether a retry helps."""
    special = BY_REASON.get(error.reason)
    if special is not None:
        return special
    spelling = error.spelling
    return HttpSpelling(spelling.http_status, spelling.openai_type, spelling.retry_helps)


def error_object(error: RagmeshError) -> dict[str, Any]:
    """The OpenAI error object."""
    return {
        "error": {
            "message": error.message,
            "type": spelling_of(error).type,
            "param": error.field,
            "code": error.reason.lower() or None,
        }
    }


def error_headers(error: RagmeshError) -> dict[str, str]:
    """Headers that tell a client whether, and when, to try again."""
    spelling = spelling_of(error)
    headers = {"x-should-retry": "true" if spelling.retry_helps else "false"}
    seconds = error.retry_after
    if seconds is None and spelling.retry_helps and spelling.status in {429, 503}:
        seconds = DEFAULT_RETRY_SECONDS
    if seconds is not None and spelling.retry_helps:
        headers["retry-after"] = str(max(1, math.ceil(seconds)))
        headers["retry-after-ms"] = str(max(1, math.ceil(seconds * 1000)))
    if spelling.status == 401:
        missing = error.reason == "TOKEN_MISSING"
        headers["www-authenticate"] = CHALLENGE if missing else CHALLENGE_INVALID
    return headers


def error_response(error: RagmeshError) -> Response:
    """The whole HTTP answer."""
    return Response(
        orjson.dumps(error_object(error)),
        spelling_of(error).status,
        error_headers(error),
        media_type="application/json",
    )
