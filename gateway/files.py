"""Files that are the old or the new, never half of each, and secrets only their owner reads."""

import os
from contextlib import suppress
from pathlib import Path

PRIVATE = 0o600
PUBLIC = 0o644
GROUP = 0o640


def write_atomically(path: Path, content: str | bytes, mode: int) -> None:
    """Replace a file: written beside it, flushed to disk, renamed over it.

    The mode holds from the first byte, whatever the umask; the folder must exist.
    """
    data = content.encode() if isinstance(content, str) else content
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    with suppress(FileNotFoundError):
        draft.unlink()  # left by a process of the same id that died; O_EXCL would refuse it
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            draft.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_folder(folder: Path) -> Path:
    """The folder, made if needed, that only its owner enters."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder
