"""What the last sync saw of each entry, so that what did not change is not even read.

A file in the data folder: losing it costs one reading of everything, no embedding.
"""

import fcntl
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from cli.console import Failure
from cli.syncing.entries import Known
from gateway.files import PRIVATE, write_atomically

_VERSION = 1


class Cache:
    """One source's, for one collection of one mesh. Who holds it is the one sync of these."""

    def __init__(self, folder: Path, url: str, collection: str, source: str) -> None:
        """Raises:
        Failure: another sync of these is running.
        """
        key = json.dumps([url, collection, source]).encode()
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{hashlib.sha256(key).hexdigest()[:32]}.json"
        self._lock: IO[str] = self._path.with_suffix(".lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise Failure(
                f"Another sync of {source} into '{collection}' is running.", code="sync_running"
            ) from None
        self.known: dict[str, Known] = self._load()

    def _load(self) -> dict[str, Known]:
        try:
            held = json.loads(self._path.read_bytes())
            if held["version"] != _VERSION:
                return {}
            return {id: Known(stamp, digest) for id, (stamp, digest) in held["entries"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # none yet, or none that can be read: everything is read once

    def save(self, entries: Mapping[str, Known]) -> None:
        """Keep what was seen this time."""
        held = {id: [one.stamp, one.digest] for id, one in sorted(entries.items())}
        text = json.dumps({"version": _VERSION, "entries": held}, ensure_ascii=False)
        write_atomically(self._path, text, PRIVATE)

    def close(self) -> None:
        self._lock.close()
