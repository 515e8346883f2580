"""Files of shards: sparse copies, and what makes them durable.

A shard's files claim some 160 MB and hold some hundred kB, so copies keep the holes (lseek(2),
SEEK_DATA and SEEK_HOLE).
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

_PIECE = 1 << 22
_LARGE = 1 << 20
_READ_LATER = frozenset({"wal", "store", "payload_storage", "matrix.dat", "page_0.dat"})
"""Of a shard: what is read where a search needs it, and pages that are mostly holes."""


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder, holes as holes. `target` must not exist."""
    target.mkdir()
    for entry in os.scandir(source):
        if entry.is_dir(follow_symlinks=False):
            copy_tree(Path(entry.path), target / entry.name)
        else:
            copy_file(Path(entry.path), target / entry.name)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, holes as holes."""
    with source.open("rb", buffering=0) as reading, target.open("wb", buffering=0) as writing:
        size = os.fstat(reading.fileno()).st_size
        for start, end in _data(reading.fileno(), size):
            place = start
            while place < end:
                chunk = os.pread(reading.fileno(), min(_PIECE, end - place), place)
                if not chunk:
                    break  # it became shorter meanwhile
                place += os.pwrite(writing.fileno(), chunk, place)
        os.ftruncate(writing.fileno(), size)


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges of a file that hold data."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def warm(folder: Path) -> None:
    """Have the kernel read what the engine reads when it opens a shard. The GIL is free meanwhile.

    The engine lets the cache forget such files when it closes them, and reads them with the GIL
    held: from disk that takes a second for some 40 MB, from the cache a hundredth of it.
    """
    for where, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if one not in _READ_LATER]
        for name in names:
            if name not in _READ_LATER:
                with (Path(where) / name).open("rb", buffering=0) as reading:
                    while reading.read(_PIECE):
                        pass


def read_ahead(folder: Path) -> None:
    """Have the kernel read what `warm` leaves out: the payloads and vectors of what is found. Each
    page that is not in the cache is a wait for the disk with the GIL held.

    Nothing happens where that would take more than half of the memory that is free.
    """
    with suppress(OSError):  # the part is gone already, or this is not Linux
        later = sorted(path for path in _read_later(folder) if path.is_file())
        if sum(path.stat().st_blocks * 512 for path in later) > _available_bytes() / 2:
            return
        for path in later:
            with path.open("rb", buffering=0) as reading:
                descriptor = reading.fileno()
                for start, end in _data(descriptor, os.fstat(descriptor).st_size):
                    for place in range(start, end, _PIECE):
                        os.pread(descriptor, min(_PIECE, end - place), place)


def _read_later(folder: Path) -> set[Path]:
    found: set[Path] = set()  # some lie in folders that are named themselves
    for name in _READ_LATER - {"wal"}:
        for path in folder.rglob(name):
            found.update(path.rglob("*") if path.is_dir() else (path,))
    return found


def _available_bytes() -> int:
    """Memory that may be taken without swapping, as Linux reckons."""
    for line in Path("/proc/meminfo").read_text("ascii").splitlines():
        name, value, *_ = line.split()
        if name == "MemAvailable:":
            return int(value) * 1024
    return 0


def used_bytes(folder: Path) -> int:
    """Bytes that a folder's files take on disk."""
    return sum(
        os.lstat(Path(where) / name).st_blocks * 512
        for where, _, names in os.walk(folder)
        for name in names
    )


def sync_tree(folder: Path) -> None:
    """Make a folder with everything in it durable. The GIL is free meanwhile."""
    for where, _, names in os.walk(folder):
        for name in names:
            sync_file(Path(where) / name)
        sync_file(Path(where))


def sync_file(path: Path) -> None:
    """Make a file's contents durable, or a folder's entries; nothing happens when it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unlink_large(folder: Path, keep: ExitStack) -> None:
    """Delete a folder's large files while the engine has them open.

    `keep` holds them open too. So the engine's closing, which holds the GIL, frees no page of them,
    and closing `keep` does: 30 ms for 100 MB.
    """
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where) / name
            if path.stat().st_size >= _LARGE:
                keep.enter_context(path.open("rb", buffering=0))
                path.unlink()


def remove_tree(path: Path) -> None:
    """Delete a folder or a file; it may be gone already."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
