"""Engines that block, run in a thread of their own and left at once."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from services.infer.adapters.failures import BAD, CUT, DOWN, failure
from services.runtime.errors import RagmeshError

log = logging.getLogger(__name__)

T = TypeVar("T")

Stopped = Callable[[], bool]
"""Whether nobody waits any more; cheap, and asked often."""


class Thread:
    """One thread that works for one caller after the other."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._closed = threading.Event()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function and wait for it. One that has begun goes on when its caller leaves; one
        whose turn has not come is then never called.

        Raises:
            Unavailable: ENGINE_UNAVAILABLE: the thread is closed.
        """
        done = self._begin(function, *arguments)
        try:
            return await done
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if done.cancelled() and task is not None and not task.cancelling():
                raise failure(DOWN) from None  # it was closed; nobody cancelled the caller
            raise

    async def stream(
        self, produce: Callable[[Callable[[T], None], Stopped], None]
    ) -> AsyncGenerator[T, None]:
        """What a function gives out, as it comes.

        Closing the generator, or cancelling who waits on it, makes `Stopped` true, on which the
        function returns; one whose turn has not come is never begun. So does `close`.

        Args:
            produce: called in the thread with a function that gives an item out, and `Stopped`.

        Raises:
            Unavailable: ENGINE_UNAVAILABLE: the thread is closed, or was before the end.
            Exception: what the function raises.
        """
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[tuple[T] | None] = asyncio.Queue()
        left = threading.Event()
        cut = False

        def stopped() -> bool:
            return left.is_set() or self._closed.is_set()

        def emit(item: T) -> None:
            if left.is_set():
                return
            try:
                loop.call_soon_threadsafe(items.put_nowait, (item,))
            except RuntimeError:  # the loop is gone, and with it who waited
                left.set()

        def work() -> None:
            nonlocal cut
            if not stopped():
                produce(emit, stopped)
            cut = self._closed.is_set()

        done = self._begin(work)
        # After the items: both go through the loop, in their order.
        done.add_done_callback(lambda _: items.put_nowait(None))
        done.add_done_callback(_read)
        try:
            while (item := await items.get()) is not None:
                yield item[0]
            if done.cancelled():
                raise failure(DOWN)
            done.result()
            if cut:
                raise failure(CUT)
        finally:
            left.set()
            done.cancel()

    def close(self) -> None:
        """Begin nothing more, and stop what runs."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, function: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":
        try:
            return asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        except RuntimeError as error:
            raise failure(DOWN) from error


def guarded(function: Callable[[], T]) -> T:
    """Call a vendor's code; what it raises is logged and becomes ours.

    Raises:
        RagmeshError: the function's own.
        Internal: ENGINE_BAD_ANSWER, for anything else.
    """
    try:
        return function()
    except RagmeshError:
        raise
    except Exception as error:  # a vendor's code raises what it likes
        log.exception("a generation failed")
        raise failure(BAD) from error


def _read(done: "asyncio.Future[Any]") -> None:
    """Read the outcome, so that it is not reported as lost when nobody waits for it."""
    if not done.cancelled():
        done.exception()
