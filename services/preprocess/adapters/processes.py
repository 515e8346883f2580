"""Worker processes, one document each at a time, that may be killed at any point.

Each worker is forked by a fork server, a small process without gRPC's threads that has the
parsers loaded, so a new worker takes milliseconds. It has a pipe of its own: killing one, by its
limits, by a crash or by a caller who left, touches no other. One thread per worker waits for the
pipe; the event loop never does.
"""

import asyncio
import logging
import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

from services.preprocess.documents import Chunking, Processed, Source
from services.preprocess.refusals import over_limit, unreadable
from services.preprocess.worker import Crash, Job, Outcome, WorkerLimits, main
from services.runtime.errors import FailedPrecondition, RagmeshError, ResourceExhausted

log = logging.getLogger(__name__)

_EXIT_SECONDS = 5.0
# A process that runs out of memory is killed by the kernel, or aborts in native code.
_OUT_OF_MEMORY = frozenset((-signal.SIGKILL, -signal.SIGABRT))


class WorkerDied(Exception):
    """The process ended in the middle of a document."""

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class _Worker:
    """One process and its pipe. Its methods block and run in a thread, but `kill`."""

    def __init__(self, limits: WorkerLimits, documents: int) -> None:
        self._limits = limits
        self._documents = documents
        self._served = 0
        self._process: ForkServerProcess | None = None
        self._connection: Connection | None = None

    def start(self) -> Connection:
        """The pipe to a live process; a new one when there is none."""
        alive = self._process is not None and self._process.is_alive()
        if alive and self._connection is not None and self._served < self._documents:
            return self._connection
        self.stop()
        context = multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=main, args=(theirs, self._limits), name="parser", daemon=True
        )
        process.start()
        theirs.close()  # so that its death ends the pipe
        self._process, self._connection, self._served = process, ours, 0
        try:
            ours.recv()
        except (EOFError, OSError):
            raise WorkerDied(self.stop()) from None
        return ours

    def run(self, job: Job) -> Outcome:
        """Raises WorkerDied."""
        connection = self.start()
        self._served += 1
        try:
            connection.send(job)
            outcome: Outcome = connection.recv()
        except (EOFError, OSError):
            raise WorkerDied(self.stop()) from None
        if isinstance(outcome, ResourceExhausted):
            self.stop()  # its memory was at the limit, and the next document gets all of it
        return outcome

    def kill(self) -> None:
        """End the process now. May be called from another thread: the pipe then ends."""
        if self._process is not None and self._process.is_alive():
            self._process.kill()

    def stop(self) -> int | None:
        """End the process and return its exit code."""
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if process is None:
            return None
        process.join(_EXIT_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        code = process.exitcode
        process.close()
        return code


class WorkerProcesses:
    """A fixed number of workers; a document waits for a free one."""

    def __init__(
        self,
        *,
        workers: int,
        limits: WorkerLimits,
        seconds: float,
        documents_per_worker: int = 500,
    ) -> None:
        """Args:
        workers: how many processes.
        limits: what each may use.
        seconds: the wall time one document may take.
        documents_per_worker: after so many a process is replaced, so that leaks have an end.
        """
        multiprocessing.get_context("forkserver").set_forkserver_preload([main.__module__])
        self._workers = [_Worker(limits, documents_per_worker) for _ in range(workers)]
        self._idle: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()
        for worker in self._workers:
            self._idle.put_nowait(worker)
        self._limits = limits
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="parser")

    async def ready(self) -> None:
        """Return when every worker runs.

        Raises:
            FailedPrecondition: PARSER_NOT_STARTED.
        """
        loop = asyncio.get_running_loop()
        starts = [loop.run_in_executor(self._threads, worker.start) for worker in self._workers]
        try:
            await asyncio.gather(*starts)
        except WorkerDied as death:
            raise FailedPrecondition(
                "PARSER_NOT_STARTED",
                f"A parser process ended with code {death.exit_code} before it was ready; "
                "RAGMESH_PARSE_MEMORY_BYTES may be too low.",
            ) from None

    async def aclose(self) -> None:
        """End every worker. Documents in work are lost."""
        for worker in self._workers:
            worker.kill()
        loop = asyncio.get_running_loop()
        for worker in self._workers:
            await loop.run_in_executor(self._threads, worker.stop)
        self._threads.shutdown(wait=False)

    async def process(
        self, source: Source, title: str, chunking: Chunking, tokenizer: bytes | None
    ) -> Processed:
        """Parse and cut one document in the next free worker.

        Raises:
            InvalidArgument: what `processing.process` raises; UNREADABLE_DOCUMENT also when the
                document crashed its parser.
            ResourceExhausted: PARSE_LIMIT, past the time or the memory.
        """
        worker = await self._idle.get()
        try:
            return await self._process(worker, Job(source, title, chunking, tokenizer))
        finally:
            self._idle.put_nowait(worker)

    async def _process(self, worker: _Worker, job: Job) -> Processed:
        loop = asyncio.get_running_loop()
        filename = job.source.filename
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            worker.kill()

        timer = loop.call_later(self._seconds, expire)
        work = loop.run_in_executor(self._threads, worker.run, job)
        try:
            outcome = await _uncancelled(work, worker.kill)
        except WorkerDied as death:
            if expired:
                raise over_limit(
                    filename, f"reading it takes longer than {self._seconds:g} seconds"
                ) from None
            log.warning("parser process died", extra={"exit_code": death.exit_code})
            if death.exit_code in _OUT_OF_MEMORY:
                raise over_limit(
                    filename, "reading it takes more than the memory allowed"
                ) from None
            raise unreadable(filename, "it crashed its parser") from None
        finally:
            timer.cancel()
        if isinstance(outcome, RagmeshError):
            raise outcome
        if isinstance(outcome, Crash):
            log.warning("parser failed", extra={"exception": outcome.kind})
            raise unreadable(filename, "its parser failed on it")
        return outcome


async def _uncancelled(work: "asyncio.Future[Outcome]", kill: Callable[[], None]) -> Outcome:
    """Await a thread's work; when cancelled, kill it and wait until the thread is free again."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        kill()
        await asyncio.wait([work])
        # Taken, so that nobody reports an exception that was never looked at.
        work.cancelled() or work.exception()
        raise
