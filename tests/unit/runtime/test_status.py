"""Errors survive the wire; foreign ones are mapped by their code and lose their text."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata

from services.runtime.errors import ERRORS, NotFound, RagmeshError, Unavailable
from services.runtime.status import (
    DETAILS_KEY,
    MAX_MESSAGE_BYTES,
    error_from_rpc,
    error_to_status,
    status_to_error,
)


def rpc_error(code: grpc.StatusCode, message: str, details: bytes | None = None) -> AioRpcError:
    trailers = Metadata((DETAILS_KEY, details)) if details is not None else Metadata()
    return AioRpcError(code, Metadata(), trailers, details=message)


@pytest.mark.parametrize("cls", ERRORS.values(), ids=lambda cls: cls.code)
def test_every_class_survives_the_wire(cls: type[RagmeshError]) -> None:
    sent = cls("SOME_REASON", "説明 with text", field="documents[3].text", retry_after=1.25)
    status = error_to_status(sent)
    code = grpc.StatusCode[cls.code]
    got = error_from_rpc(rpc_error(code, status.message, status.SerializeToString()))
    assert type(got) is cls
    assert (got.reason, got.message) == ("SOME_REASON", "説明 with text")
    assert (got.field, got.retry_after) == ("documents[3].text", 1.25)


def test_details_are_the_standard_ones() -> None:
    status = error_to_status(NotFound("X", "no x", field="x", retry_after=2))
    names = [detail.TypeName() for detail in status.details]
    assert names == ["google.rpc.ErrorInfo", "google.rpc.BadRequest", "google.rpc.RetryInfo"]
    plain = error_to_status(NotFound("X", "no x"))
    assert [detail.TypeName() for detail in plain.details] == ["google.rpc.ErrorInfo"]
    assert status_to_error(plain).field is None


@pytest.mark.parametrize("code", list(ERRORS))
def test_a_foreign_error_keeps_its_code_only(code: str) -> None:
    got = error_from_rpc(rpc_error(grpc.StatusCode[code], "connect to 10.1.2.3:50051 failed"))
    assert got.code == code
    assert got.reason == code
    assert "10.1.2.3" not in got.message


def test_an_unreachable_service_says_when_to_try_again() -> None:
    got = error_from_rpc(rpc_error(grpc.StatusCode.UNAVAILABLE, "refused"))
    assert isinstance(got, Unavailable)
    assert got.retry_after == 1.0


def test_details_of_another_domain_are_foreign() -> None:
    info = AnyMessage()
    info.Pack(error_details_pb2.ErrorInfo(reason="THEIRS", domain="example.com"))
    status = status_pb2.Status(code=5, message="their text", details=[info])
    got = error_from_rpc(
        rpc_error(grpc.StatusCode.NOT_FOUND, "their text", status.SerializeToString())
    )
    assert (got.reason, got.message) == ("NOT_FOUND", "The resource does not exist.")


@pytest.mark.parametrize("details", [b"\xff\xff\xff", b""], ids=["garbage", "empty"])
def test_details_that_contradict_the_status_are_ignored(details: bytes) -> None:
    got = error_from_rpc(rpc_error(grpc.StatusCode.ABORTED, "text", details))
    assert (got.code, got.reason) == ("ABORTED", "ABORTED")


def test_a_long_message_fits_into_the_trailers() -> None:
    status = error_to_status(NotFound("X", "長" * 5000))
    assert len(status.message.encode()) <= MAX_MESSAGE_BYTES + 3
    assert status.message.endswith("長…")
