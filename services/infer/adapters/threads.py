"""Engines that block, run in a thread of their own and left at once."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

Stopped = Callable[[], bool]
"""Whether nobody waits any more; cheap, and asked often."""


class Thread:
    """One thread that works for one caller after the other."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function and wait for it, even when the caller is cancelled meanwhile."""
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._pool, function, *arguments))

    async def stream(
        self, produce: Callable[[Callable[[T], None], Stopped], None]
    ) -> AsyncGenerator[T, None]:
        """What a function gives out, as it comes.

        Closing the generator, or cancelling who waits on it, makes `Stopped` true, on which the
        function returns; one whose turn has not come is never begun.

        Args:
            produce: called in the thread with a function that gives an item out, and `Stopped`.
        """
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[tuple[T] | None] = asyncio.Queue()
        stop = threading.Event()

        def put(item: tuple[T] | None) -> None:
            if not stop.is_set():  # the loop may be gone by then
                loop.call_soon_threadsafe(items.put_nowait, item)

        def work() -> None:
            if stop.is_set():
                return
            try:
                produce(lambda item: put((item,)), stop.is_set)
            finally:
                put(None)

        done = loop.run_in_executor(self._pool, work)
        try:
            while (item := await items.get()) is not None:
                yield item[0]
            await done
        finally:
            stop.set()
            if not done.done():
                done.add_done_callback(_forget)

    def close(self) -> None:
        """Begin nothing more; what runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _forget(done: "asyncio.Future[None]") -> None:
    """Read the outcome of work that nobody waits for, so that it is not reported as lost."""
    if not done.cancelled():
        done.exception()
