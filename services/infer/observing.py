"""What engines tell about their own load, as gauges of ours."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from services.infer import metrics
from services.infer.core import Provider
from services.infer.ports import EngineLoad, LoadReporter
from services.runtime.errors import RagmeshError

_TIMEOUT = 5.0


class Observer:
    """Asks every engine that can tell, every so many seconds. One that does not answer keeps no
    gauge, so that an old figure is not taken for a new one."""

    def __init__(self, providers: Mapping[str, Provider], interval: float) -> None:
        """Args:
        interval: seconds; 0: never.
        """
        self._engines = {
            name: provider.engine
            for name, provider in providers.items()
            if isinstance(provider.engine, LoadReporter)
        }
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to ask."""
        if self._interval and self._engines:
            self._task = asyncio.create_task(self._watch(), name="engines' load")

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def observe(self) -> None:
        """Ask once."""
        await asyncio.gather(*(self._ask(*item) for item in self._engines.items()))

    async def _watch(self) -> None:
        while True:
            await self.observe()
            await asyncio.sleep(self._interval)

    async def _ask(self, name: str, engine: LoadReporter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                load = await engine.load_now()
        except (RagmeshError, TimeoutError):
            load = EngineLoad()
        for gauge, value in (
            (metrics.ENGINE_RUNNING, load.running),
            (metrics.ENGINE_WAITING, load.waiting),
            (metrics.ENGINE_CACHE, load.cache_used),
        ):
            if value is None:
                with suppress(KeyError):
                    gauge.remove(name)
            else:
                gauge.labels(name).set(value)
