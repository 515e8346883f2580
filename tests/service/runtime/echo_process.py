"""The echo service as a process of its own, as every service's ``__main__`` is."""

import asyncio
from typing import ClassVar

from services.runtime.errors import FailedPrecondition
from services.runtime.server import Service, run
from services.runtime.settings import RuntimeSettings, load
from tests.service.runtime.echo import NAME, EchoServicer, add_to_server


class EchoSettings(RuntimeSettings):
    service: ClassVar[str] = "infer"
    loading: float = 0.0
    """Seconds until ready; negative fails."""


def build(settings: EchoSettings) -> Service:
    async def ready() -> None:
        if settings.loading < 0:
            raise FailedPrecondition("MODEL_MISSING", "RAGMESH_MODEL_PATH names no model.")
        await asyncio.sleep(settings.loading)

    servicer = EchoServicer()
    return Service(
        name="infer",
        register=lambda server: add_to_server(servicer, server),
        service_names=(NAME,),
        ready=ready,
    )


if __name__ == "__main__":
    run(build, load(EchoSettings))
