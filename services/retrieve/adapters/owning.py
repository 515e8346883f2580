"""The lock on a folder that one process works in."""

import fcntl
import time
from pathlib import Path
from typing import IO

from services.runtime.errors import FailedPrecondition

LOCK_SECONDS = 5.0


def own(root: Path) -> IO[bytes]:
    """Make sure that no other process works in a folder; the lock ends with this one.

    Raises:
        FailedPrecondition: DATA_IN_USE, when another one does not leave within seconds.
    """
    root.mkdir(parents=True, exist_ok=True)
    lock = (root / "owner.lock").open("wb")
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                lock.close()
                raise FailedPrecondition(
                    "DATA_IN_USE",
                    f"Another process works in {root}; stop it, or set RAGMESH_DATA or "
                    "VECTOR_URL to another folder.",
                ) from None
            time.sleep(0.05)  # one that was just killed is on its way out
        else:
            return lock
