"""Mutual TLS: who gets in, and who may say on whose behalf."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import grpc
import pytest

from services.runtime.channel import connect
from services.runtime.context import Caller, caller_metadata
from services.runtime.server import Service, serving
from services.runtime.settings import RuntimeSettings
from services.runtime.status import error_from_rpc
from services.runtime.tls import TlsFiles, files_in
from tests.service.runtime.certificates import Authority
from tests.service.runtime.echo import NAME, EchoServicer, add_to_server, send
from tests.service.runtime.ports import free_base

CALLER = Caller("t" * 64, "someone", "r-1")


class EchoSettings(RuntimeSettings):
    service: ClassVar[str] = "infer"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    authority = Authority(directory)
    for service in ("gateway", "worker", "infer", "retrieve"):
        authority.issue(service)
    return directory


@pytest.fixture
async def address(keys: Path, echo: EchoServicer) -> AsyncIterator[str]:
    settings = EchoSettings(grpc_base=free_base("infer"), tls_dir=keys, drain_delay=0.0)
    service = Service(
        name="infer",
        register=lambda server: add_to_server(echo, server),
        service_names=(NAME,),
    )
    async with serving(service, settings) as bound:
        yield bound


async def call_as(files: TlsFiles | None, address: str, order: bytes = b"who") -> list[bytes]:
    async with connect(address, tls=files, authority="infer" if files else None) as channel:
        metadata = caller_metadata(CALLER)
        return await send(channel, "Unary", order, metadata=metadata, timeout=5)


@pytest.mark.parametrize("peer", ["gateway", "worker"])
async def test_the_gateway_and_the_worker_name_tenants(
    peer: str, keys: Path, address: str, echo: EchoServicer
) -> None:
    await call_as(files_in(keys, peer), address)
    assert echo.callers == [CALLER]


async def test_another_service_may_not_name_a_tenant(
    keys: Path, address: str, echo: EchoServicer
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call_as(files_in(keys, "retrieve"), address)
    error = error_from_rpc(caught.value)
    assert (error.code, error.reason) == ("PERMISSION_DENIED", "TENANT_NOT_ACCEPTED")
    assert not echo.calls


async def test_a_certificate_of_another_authority_does_not_get_in(
    keys: Path, address: str, echo: EchoServicer, tmp_path: Path
) -> None:
    Authority(tmp_path).issue("gateway")
    own = files_in(tmp_path, "gateway")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call_as(TlsFiles(keys / "ca.crt", own.cert, own.key), address)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not echo.calls


async def test_plaintext_does_not_get_in(address: str, echo: EchoServicer) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call_as(None, address)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not echo.calls


async def test_a_client_trusts_its_own_authority_and_name_only(
    keys: Path, address: str, tmp_path: Path
) -> None:
    Authority(tmp_path).issue("gateway")
    own = files_in(keys, "gateway")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call_as(TlsFiles(tmp_path / "ca.crt", own.cert, own.key), address)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    async with connect(address, tls=own, authority="retrieve") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(channel, "Unary", b"hello", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
