"""Settings of a mesh of its own: a temporary data directory and ports that were free."""

import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from cli.settings import SERVICES, CommandSettings
from services.runtime.settings import OFFSETS

STANDIN = Path(__file__).with_name("standin.py")
Programs = Callable[..., Mapping[str, Sequence[str]]]


def free_base(count: int) -> int:
    """The first of `count` neighbouring ports that are all free now."""
    for base in range(42000, 60000, count + 3):
        sockets = []
        try:
            for port in range(base, base + count):
                probe = socket.socket()
                sockets.append(probe)
                probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            for probe in sockets:
                probe.close()
        return base
    raise RuntimeError("no free ports")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandSettings:
    """In the environment too, for the processes."""
    base = free_base(2 * len(OFFSETS) + 1)
    values = {
        "RAGMESH_DATA": tmp_path / "var",
        "RAGMESH_PORT": base,
        "RAGMESH_GRPC_BASE": base + 1,
        "RAGMESH_METRICS_BASE": base + 1 + len(OFFSETS),
        "RAGMESH_DRAIN_DELAY": 0,
        "LANG": "C.UTF-8",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    return CommandSettings()


@pytest.fixture
def programs() -> Programs:
    """Stand-ins; a mode may be given per service."""

    def make(**modes: str) -> Mapping[str, Sequence[str]]:
        return {
            name: (sys.executable, str(STANDIN), name, modes.get(name, "fine"))
            for name in (*SERVICES, "gateway")
        }

    return make
