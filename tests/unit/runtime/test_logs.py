"""Log lines: JSON, with the request's id, without what the user wrote."""

import io
import json
import logging
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from services.runtime.context import Caller, set_caller
from services.runtime.logs import JsonFormatter, describe

SECRET = "my prompt 秘密"


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(stream: io.StringIO) -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.runtime.logs")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("infer"))
    logger.addHandler(handler)
    logger.propagate = False
    yield logger
    logger.removeHandler(handler)


def only_line(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_a_line_has_the_promised_fields(log: logging.Logger, stream: io.StringIO) -> None:
    span = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))

    def call() -> None:
        set_caller(Caller("t", "s", "r-1"))
        with trace.use_span(NonRecordingSpan(span)):
            log.warning("loaded %d", 3, extra={"model": "tiny"})

    copy_context().run(call)
    line = only_line(stream)
    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "tests.runtime.logs",
        "msg": "loaded 3",
        "service": "infer",
        "request_id": "r-1",
        "trace_id": f"{0xABC:032x}",
        "model": "tiny",
    }


def test_an_exception_is_logged_without_its_text(log: logging.Logger, stream: io.StringIO) -> None:
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise ExceptionGroup(SECRET, [ValueError(SECRET)]) from error
    except ExceptionGroup:
        log.exception("failed")
    assert "秘密" not in stream.getvalue()
    logged = only_line(stream)["error"]
    assert logged["type"] == "builtins.ExceptionGroup"
    assert logged["group"][0]["type"] == "builtins.ValueError"
    assert logged["cause"]["type"] == "builtins.KeyError"
    assert "test_an_exception_is_logged" in logged["stack"][0]


def test_the_text_is_there_when_asked_for() -> None:
    assert describe(ValueError(SECRET), text=True)["text"] == SECRET


def test_what_json_cannot_say_is_still_logged(log: logging.Logger, stream: io.StringIO) -> None:
    log.warning("odd", extra={"value": {1, 2}})
    assert only_line(stream)["value"] == "{1, 2}"
