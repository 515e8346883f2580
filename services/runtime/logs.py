"""JSON lines on stderr. What a user wrote never gets in by way of an exception's text."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

from opentelemetry import trace

from services.runtime.context import current_request_id

# What a LogRecord has by itself; anything beyond came in through `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, msg, service, request_id, trace_id, extras."""

    def __init__(self, service: str, *, user_text: bool = False) -> None:
        """Args:
        service: the name of this process.
        user_text: also write exception messages, which may quote prompts and passages.
        """
        super().__init__()
        self._service = service
        self._user_text = user_text

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
            "service": self._service,
        }
        if request_id := current_request_id():
            line["request_id"] = request_id
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = trace.format_trace_id(span.trace_id)
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe(record.exc_info[1], text=self._user_text)
        return json.dumps(line, ensure_ascii=False, default=repr)


def describe(error: BaseException, *, text: bool = False) -> dict[str, Any]:
    """An exception for the log: its type and where it happened, its causes likewise.

    Its message is left out unless `text`: ``ValueError("bad token 'my secret'")`` is common.
    """
    described: dict[str, Any] = {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "stack": [
            f"{frame.filename}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ],
    }
    if text:
        described["text"] = str(error)
    if isinstance(error, BaseExceptionGroup):
        described["group"] = [describe(inner, text=text) for inner in error.exceptions]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        described["cause"] = describe(cause, text=text)
    return described


def configure_logs(
    service: str, level: str, *, user_text: bool = False, stream: TextIO | None = None
) -> None:
    """Send every logger's records, from `level` on, to `stream` (stderr) as JSON."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(service, user_text=user_text))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
