"""``grpc.health.v1`` that does not hold a drain up."""

import asyncio
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health(health.aio.HealthServicer):
    """The library's servicer, whose watchers are let go when the server drains.

    A Watch never ends by itself, so a single one would make every stop take its whole grace.
    """

    def __init__(self, service_names: tuple[str, ...]) -> None:
        """Args:
        service_names: full names of the proto services; the server as a whole is the name "".
        """
        super().__init__()
        self._names = ("", *service_names)
        self._closing = asyncio.Event()

    async def report(self, serving: bool) -> None:
        """Give every name the same status; without effect once draining."""
        for name in self._names:
            await self.set(name, SERVING if serving else NOT_SERVING)

    async def drain(self) -> None:
        """NOT_SERVING for good; watchers hear it."""
        await self.enter_graceful_shutdown()

    def release_watchers(self) -> None:
        self._closing.set()

    async def Watch(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        tasks = (
            asyncio.ensure_future(super().Watch(request, context)),
            asyncio.ensure_future(self._closing.wait()),
        )
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
