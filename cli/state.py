"""What `up` leaves on disk for `down`, `status` and the next `up`: who runs, and the lock."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from cli.console import Failure
from gateway.files import PUBLIC, write_atomically

EXIT_RUNNING = 3
# Start times are computed from the clock at boot; two readings differ by rounding.
_START_TOLERANCE = 1.0


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be mistaken for another one that was given its pid later."""

    pid: int
    started: float
    """Seconds since the epoch, as the system tells."""

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """None when it is already gone."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def find(self) -> psutil.Process | None:
        """The process while it lives; None when it is gone or the pid is another's."""
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) > _START_TOLERANCE:
                return None
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except psutil.NoSuchProcess:
            return None


@dataclass(slots=True)
class ProcessState:
    """One supervised process."""

    id: ProcessId | None = None
    state: str = "starting"
    """starting, serving, waiting (for its next start) or stopped."""
    restarts: int = 0


@dataclass(slots=True)
class MeshState:
    """A running mesh."""

    supervisor: ProcessId
    url: str
    phase: str = "starting"
    """starting, serving, stopping, failed."""
    error: str = ""
    """Why the start failed."""
    processes: dict[str, ProcessState] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self), indent=1), PUBLIC)


def load_state(path: Path) -> MeshState | None:
    """The recorded state; None when there is none, or none that can be read."""
    try:
        raw = json.loads(path.read_bytes())
        return MeshState(
            supervisor=ProcessId(**raw["supervisor"]),
            url=raw["url"],
            phase=raw["phase"],
            error=raw["error"],
            processes={name: _process(entry) for name, entry in raw["processes"].items()},
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return None  # written by another version: nothing in it may be acted upon


def _process(raw: dict[str, Any]) -> ProcessState:
    identity = ProcessId(**raw["id"]) if raw["id"] else None
    return ProcessState(identity, raw["state"], raw["restarts"])


def end(process: psutil.Process, grace: float) -> bool:
    """SIGTERM, and SIGKILL after the grace in seconds; answers whether it had to be killed."""
    try:
        process.terminate()
        process.wait(grace)
    except psutil.NoSuchProcess:
        return False
    except psutil.TimeoutExpired:
        try:
            process.kill()
            process.wait(5)
        except psutil.NoSuchProcess:
            return False
        return True
    return False


@contextmanager
def hold_lock(path: Path, data: Path) -> Iterator[None]:
    """Be the one supervisor of a data directory. The kernel lets go when the holder dies.

    Raises:
        Failure: another one holds it.
    """
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            raise Failure(
                f"A mesh already runs on {data} (pid {holder or 'unknown'}). `ragmesh down` ends "
                "it; RAGMESH_DATA chooses another directory.",
                status=EXIT_RUNNING,
                code="already_running",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
