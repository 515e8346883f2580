"""An echo service behind the real interceptors."""

from collections.abc import AsyncIterator

import grpc
import pytest

from services.runtime.testing import serve_for_test
from tests.service.runtime.echo import EchoServicer, add_to_server


@pytest.fixture
async def echo() -> EchoServicer:
    return EchoServicer()


@pytest.fixture
async def channel(echo: EchoServicer) -> AsyncIterator[grpc.aio.Channel]:
    async with serve_for_test([(add_to_server, echo)]) as connected:
        yield connected
