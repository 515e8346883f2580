"""Who is calling."""

from contextvars import copy_context

import pytest

from services.runtime.context import (
    Caller,
    caller_metadata,
    current_caller,
    current_request_id,
    new_request_id,
    request_id_or_none,
    require_tenant,
    set_caller,
)
from services.runtime.errors import Unauthenticated


def test_without_a_call_there_is_no_caller() -> None:
    with pytest.raises(Unauthenticated, match="TENANT_REQUIRED"):
        copy_context().run(current_caller)
    assert copy_context().run(current_request_id) == ""


def test_a_call_without_a_tenant_has_a_request_id_but_no_caller() -> None:
    def call() -> None:
        set_caller(Caller("", "someone", "r-1"))
        assert current_request_id() == "r-1"
        with pytest.raises(Unauthenticated):
            require_tenant()

    copy_context().run(call)


def test_the_caller_is_what_was_set() -> None:
    def call() -> None:
        caller = Caller("t", "s", "r")
        set_caller(caller)
        assert current_caller() == caller
        assert require_tenant() == "t"

    copy_context().run(call)


def test_metadata_is_ascii_whatever_the_subject() -> None:
    metadata = dict(caller_metadata(Caller("t", "佐藤@example.com\n", "r")))
    assert all(value.isascii() and value.isprintable() for value in metadata.values())


@pytest.mark.parametrize("value", ["", "a b", "naïve", "x" * 129, "line\nbreak", b"bytes", None])
def test_unfit_request_ids_are_not_taken(value: str | bytes | None) -> None:
    assert request_id_or_none(value) is None


def test_fit_request_ids_are_taken() -> None:
    assert request_id_or_none("req-1:2/3") == "req-1:2/3"
    assert request_id_or_none(new_request_id()) is not None
