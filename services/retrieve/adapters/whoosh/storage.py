"""Whoosh's files, written so that a commit survives a loss of power.

Whoosh renames a new table of contents into place, but tells the disk nothing: here what a table
names is on the disk before it, and the rename itself before the commit returns.
"""

import os
from pathlib import Path
from typing import Any

from whoosh.filedb.filestore import FileStorage
from whoosh.filedb.structfile import StructFile

_SEGMENT = ".seg"
_TABLE = ".toc"


class DurableStorage(FileStorage):  # type: ignore[misc]
    """A folder; segments and tables of contents are synced."""

    def create_file(self, name: str, **options: Any) -> StructFile:
        file = super().create_file(name, **options)
        if name.endswith(_SEGMENT) or _TABLE in name:
            file.onclose = _sync
        return file

    def rename_file(self, oldname: str, newname: str, safe: bool = False) -> None:
        os.replace(self._fpath(oldname), self._fpath(newname))
        sync_folder(Path(self.folder))


def _sync(file: StructFile) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
