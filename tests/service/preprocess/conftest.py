"""A preprocess server with real worker processes, shared by the tests of a module."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from ragmesh.preprocess.v1 import preprocess_pb2_grpc
from services.preprocess.__main__ import build
from services.preprocess.settings import PreprocessSettings
from services.runtime.testing import serve_for_test
from tests.service.preprocess.client import Stub

Serve = Callable[..., AbstractAsyncContextManager[Stub]]


@pytest.fixture
def serve() -> Serve:
    """Serves preprocess with the given settings and yields a stub."""

    @asynccontextmanager
    async def serving(**given: object) -> AsyncIterator[Stub]:
        service = build(PreprocessSettings.model_validate({"parse_workers": 1, **given}))
        try:
            await service.ready()
            async with serve_for_test(
                [(lambda _, server: service.register(server), None)]
            ) as channel:
                yield preprocess_pb2_grpc.PreprocessServiceStub(channel)
        finally:
            await service.aclose()

    return serving
