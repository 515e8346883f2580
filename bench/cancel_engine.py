"""``python -m bench.cancel_engine PORT``: infer, whose scripted engine tells there when it starts
and when it is aborted, by the clock that all processes of a machine share."""

import socket
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from services.infer.__main__ import build
from services.infer.adapters import REGISTRY
from services.infer.adapters.scripted import DIRECTIVES, ScriptedEngine
from services.infer.ports import EngineEvent, GenerateRequest
from services.infer.settings import InferSettings
from services.runtime.server import run
from services.runtime.settings import load


class TellingEngine(ScriptedEngine):
    """The scripted engine."""

    told = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        name = request.extra.get(DIRECTIVES, {}).get("text", "")
        before = self.aborted
        self._tell("started", name)
        try:
            async with aclosing(super().generate(request)) as events:
                async for event in events:
                    yield event
        finally:
            if self.aborted > before:
                self._tell("aborted", name)

    def _tell(self, what: str, name: str) -> None:
        self.told.send(f"{what} {time.monotonic()} {name}".encode())


if __name__ == "__main__":
    sys.modules["bench.cancel_engine"] = sys.modules["__main__"]
    TellingEngine.told.connect(("127.0.0.1", int(sys.argv[1])))
    registry = {**REGISTRY, "scripted": "bench.cancel_engine:TellingEngine"}
    run(partial(build, registry=registry), load(InferSettings))
