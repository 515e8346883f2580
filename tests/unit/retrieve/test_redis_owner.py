"""The file that says whose the keys in a Redis are."""

import os
import stat
from pathlib import Path

import pytest

from services.retrieve.adapters.redis.store import _write_durably


def test_it_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = tmp_path / "owner"
    synced: list[tuple[str, bool]] = []
    fsync = os.fsync

    def told(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append(("folder" if folder else "file", owner.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", told)
    _write_durably(owner, "mine")
    assert synced == [("file", False), ("folder", True)]
    assert owner.read_text("ascii") == "mine"
    assert list(tmp_path.iterdir()) == [owner]
