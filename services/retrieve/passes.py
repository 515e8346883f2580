"""Forward passes that concurrent callers share: one thread, batches of similar length.

The model blocks and lets go of the GIL in its kernels, so one thread runs it and the event loop
only sorts. What a caller who left was waiting for is not computed.

First come, first served: small calls share a pass, and one that fills passes of its own has them
one after the other. Callers here wait for a limited time, so some in time are better than all too
late, which is what passes mixed from all of them would come to.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client import Gauge, Histogram

from services.runtime.errors import RagmeshError

Input = TypeVar("Input")
Output = TypeVar("Output")


@dataclass(frozen=True, slots=True)
class BatchMetrics:
    """What a batcher counts."""

    waiting: Gauge
    size: Histogram
    seconds: Histogram


@dataclass(slots=True)
class _Item(Generic[Input, Output]):
    value: Input
    future: asyncio.Future[Output]


class Batcher(Generic[Input, Output]):
    """Belongs to the loop that calls `start`."""

    def __init__(
        self,
        forward: Callable[[Sequence[Input]], Sequence[Output]],
        length: Callable[[Input], int],
        *,
        thread: ThreadPoolExecutor,
        batch_tokens: int,
        queue: int,
        busy: Callable[[], RagmeshError],
        metrics: BatchMetrics,
    ) -> None:
        """Args:
        forward: blocks; outputs in the order of the inputs.
        length: tokens of an input.
        thread: that `forward` runs in; its owner shuts it down.
        batch_tokens: of a forward pass, padding included.
        queue: inputs that may wait; a call that finds nobody waiting may bring more.
        busy: what is raised when too many wait.
        metrics: where it counts.
        """
        self._forward = forward
        self._length = length
        self._thread = thread
        self._batch_tokens = batch_tokens
        self._queue = queue
        self._busy = busy
        self._metrics = metrics
        self._arrived: deque[list[_Item[Input, Output]]] = deque()
        self._sorted: deque[list[_Item[Input, Output]]] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work."""
        self._worker = asyncio.create_task(self._work(), name="batches")

    async def aclose(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def run(self, inputs: Sequence[Input]) -> list[Output]:
        """Outputs in the order of the inputs.

        Raises:
            RagmeshError: as `busy` says, when too many wait already.
            Exception: whatever `forward` raised for a batch that an input was in.
        """
        if self._waiting and self._waiting + len(inputs) > self._queue:
            raise self._busy()
        loop = asyncio.get_running_loop()
        items: list[_Item[Input, Output]] = [_Item(one, loop.create_future()) for one in inputs]
        self._arrived.append(items)
        self._count(len(items))
        self._wake.set()
        try:
            return list(await asyncio.gather(*(item.future for item in items)))
        finally:
            for item in items:
                item.future.cancel()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = self._next_batch()
            if not batch:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._metrics.size.observe(len(batch))
            try:
                with self._metrics.seconds.time():
                    outputs = await loop.run_in_executor(
                        self._thread, self._forward, [item.value for item in batch]
                    )
            except Exception as error:  # the callers get it; the worker has others to serve
                for item in batch:
                    if not item.future.done():
                        item.future.set_exception(error)
                continue
            for item, output in zip(batch, outputs, strict=True):
                if not item.future.done():
                    item.future.set_result(output)

    def _next_batch(self) -> list[_Item[Input, Output]]:
        """The next inputs that somebody still waits for; empty when there are none."""
        while True:
            if not self._sorted:
                self._sort_calls()
            if not self._sorted:
                return []
            batch = self._sorted.popleft()
            self._count(-len(batch))
            if waiting := [item for item in batch if not item.future.done()]:
                return waiting

    def _sort_calls(self) -> None:
        """Cut the oldest calls, as many as fill a pass, into batches of similar length."""
        window: list[_Item[Input, Output]] = []
        tokens = 0
        while self._arrived and tokens < self._batch_tokens:
            for item in self._arrived.popleft():
                if item.future.done():
                    self._count(-1)
                else:
                    window.append(item)
                    tokens += self._length(item.value)
        window.sort(key=lambda item: self._length(item.value))
        batch: list[_Item[Input, Output]] = []
        for item in window:  # ascending, so each item is the longest of its batch
            if batch and self._length(item.value) * (len(batch) + 1) > self._batch_tokens:
                self._sorted.append(batch)
                batch = []
            batch.append(item)
        if batch:
            self._sorted.append(batch)

    def _count(self, change: int) -> None:
        self._waiting += change
        self._metrics.waiting.set(self._waiting)
