"""The error tree: one class per canonical code, the same table on every surface."""

import re

import grpc
import pytest

from services.runtime import errors
from services.runtime.errors import ERRORS, SPELLINGS, InvalidArgument, RagmeshError, error_classes

CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]

# ARCHITECTURE's table, written out once more on purpose.
HTTP = {
    "INVALID_ARGUMENT": (400, "invalid_request_error"),
    "FAILED_PRECONDITION": (400, "invalid_request_error"),
    "OUT_OF_RANGE": (400, "invalid_request_error"),
    "UNAUTHENTICATED": (401, "authentication_error"),
    "PERMISSION_DENIED": (403, "permission_error"),
    "NOT_FOUND": (404, "not_found_error"),
    "ALREADY_EXISTS": (409, "conflict_error"),
    "ABORTED": (409, "conflict_error"),
    "RESOURCE_EXHAUSTED": (429, "rate_limit_error"),
    "CANCELLED": (499, "client_closed_request"),
    "UNKNOWN": (500, "server_error"),
    "INTERNAL": (500, "server_error"),
    "DATA_LOSS": (500, "server_error"),
    "UNIMPLEMENTED": (501, "server_error"),
    "UNAVAILABLE": (503, "server_error"),
    "DEADLINE_EXCEEDED": (504, "server_error"),
}


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_every_status_code_has_a_class_and_a_spelling(code: grpc.StatusCode) -> None:
    error = ERRORS[code.name]("REASON", "message")
    assert error.code == code.name
    assert error.spelling.number == code.value[0]
    assert (error.http_status, error.openai_type) == HTTP[code.name]


def test_there_is_nothing_beyond_the_status_codes() -> None:
    names = {code.name for code in CODES}
    assert set(SPELLINGS) == names
    assert set(ERRORS) == names
    assert len(list(error_classes())) == len(names)


def test_the_drawn_tree_is_the_table() -> None:
    drawn = re.findall(r"[├└]── (\w+) +([A-Z_]+) +(\d{3}) +(.*?)  +(yes|no)$", errors.__doc__, re.M)
    assert {code for _, code, *_ in drawn} == set(ERRORS)
    for name, code, http, openai_type, retry_helps in drawn:
        assert ERRORS[code].__name__ == name
        assert SPELLINGS[code].http_status == int(http)
        assert SPELLINGS[code].retry_helps == (retry_helps == "yes")
        if code != "CANCELLED":
            assert SPELLINGS[code].openai_type == openai_type


def test_an_error_reads_as_code_reason_and_message() -> None:
    error = InvalidArgument("QUERY_EMPTY", "The query is empty.", field="query")
    assert str(error) == "INVALID_ARGUMENT QUERY_EMPTY: The query is empty."
    assert isinstance(error, RagmeshError)
    assert error.field == "query"
    assert error.retry_after is None
