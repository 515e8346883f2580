"""A real server on a free port, with the real interceptors, for tests of servicers."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from services.runtime.channel import connect
from services.runtime.context import Caller, caller_metadata
from services.runtime.interceptors import server_interceptors
from services.runtime.propagation import outgoing_metadata

Registration = tuple[Callable[[Any, grpc.aio.Server], None], object]
"""``add_XServicer_to_server`` and the servicer."""

TEST_CALLER = Caller(tenant="test-tenant", subject="tester", request_id="")


@asynccontextmanager
async def serve_for_test(
    servicers: Sequence[Registration],
    *,
    caller: Caller | None = TEST_CALLER,
    idempotent: Iterable[str] = (),
    tenant_from_metadata: bool = True,
) -> AsyncIterator[grpc.aio.Channel]:
    """Serve on 127.0.0.1:0 and yield a channel to it.

    Args:
        servicers: pairs of ``add_XServicer_to_server`` and a servicer.
        caller: on whose behalf calls run that set no tenant metadata; None for nobody.
        idempotent: methods that the channel may retry.
        tenant_from_metadata: as in `Service`.
    """
    server = grpc.aio.server(
        interceptors=server_interceptors(tenant_from_metadata=tenant_from_metadata)
    )
    for add_to_server, servicer in servicers:
        add_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    def metadata() -> list[tuple[str, str]]:
        given = [pair for pair in caller_metadata(caller) if pair[1]] if caller else []
        return [*given, *outgoing_metadata()]

    try:
        async with connect(
            f"127.0.0.1:{port}", idempotent=idempotent, metadata=metadata
        ) as channel:
            yield channel
    finally:
        await server.stop(None)
