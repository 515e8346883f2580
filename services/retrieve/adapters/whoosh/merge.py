"""Merging segments in a process of its own: ``python -m ...whoosh.merge FOLDER SEGMENT ...``.

It reads segments, which never change, and writes one segment of their chunks into the folder
`MERGING` inside. The owner of the index takes it over with its next commit.
"""

import ctypes
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from whoosh.index import TOC, FileIndex
from whoosh.reading import SegmentReader

from services.retrieve.adapters.whoosh.schema import schema
from services.retrieve.adapters.whoosh.storage import DurableStorage

log = logging.getLogger(__name__)

NAME = "MAIN"
"""Of the index in its folder."""
MERGING = "merging"
FACTOR = 8
"""Segments of about one size that are merged: a collection of n chunks has about
FACTOR * log(n) / log(FACTOR) segments."""
SMALLEST = 512
"""Chunks up to which segments are of one size."""
MAX_CHUNKS = 250_000
"""Chunks of a merged segment, at most."""
_MEMORY_MB = 64
_STOP_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1


def due(sizes: Sequence[tuple[str, int]]) -> list[str]:
    """The segments to merge next, of pairs (id, chunks): the smallest tier that has enough."""
    tiers: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for segment, chunks in sizes:
        tier = 0
        while chunks > SMALLEST * FACTOR**tier:
            tier += 1
        tiers[tier].append((segment, chunks))
    for _, members in sorted(tiers.items()):
        chosen = members[: FACTOR * FACTOR]  # all that came while the last merge was under way
        while len(chosen) > FACTOR and sum(chunks for _, chunks in chosen) > MAX_CHUNKS:
            chosen.pop()
        if len(chosen) >= FACTOR and sum(chunks for _, chunks in chosen) <= MAX_CHUNKS:
            return [segment for segment, _ in chosen]
    return []


class Merge:
    """A merge that is under way."""

    def __init__(self, folder: Path, segments: Sequence[str]) -> None:
        self.segments = frozenset(segments)
        self._folder = folder
        shutil.rmtree(folder / MERGING, ignore_errors=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(os.getpid()), str(folder), *segments],
            stdin=subprocess.DEVNULL,
        )

    def poll(self) -> bool | None:
        """Whether it has succeeded; None while it works."""
        code = self._process.poll()
        return None if code is None else code == 0

    def wait(self) -> bool:
        return self._process.wait() == 0

    def stop(self) -> None:
        """End it; what it wrote is of no use."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
        shutil.rmtree(self._folder / MERGING, ignore_errors=True)


def merge(folder: Path, segments: Sequence[str]) -> None:
    """Write the merged segment."""
    storage = DurableStorage(str(folder))
    table = TOC.read(storage, NAME, schema=schema())
    wanted = [one for one in table.segments if one.segment_id() in segments]
    if len(wanted) != len(segments):
        raise SystemExit("the segments are gone")
    inside = DurableStorage(str(folder / MERGING)).create()
    writer = FileIndex.create(inside, schema(), NAME).writer(limitmb=_MEMORY_MB)
    for one in wanted:
        reader = SegmentReader(storage, schema(), one)
        writer.add_reader(reader)
        reader.close()
    writer.commit(merge=False)


def main(arguments: Sequence[str]) -> None:
    parent, folder, *segments = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        raise SystemExit(0)  # it died before that
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)
    merge(Path(folder), segments)


if __name__ == "__main__":
    main(sys.argv[1:])
