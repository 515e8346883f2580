"""The end of a mesh. The last of the folder by its name: it ends a mesh that the others shared."""

import psutil
import pytest

from tests.e2e.mesh import SERVICES, Mesh, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_ctrl_c_ends_every_process(slow_mesh: Mesh) -> None:
    pids = [slow_mesh.pid(name) for name in (*SERVICES, "gateway")]
    supervisor = psutil.Process(slow_mesh.supervisor.pid)
    descendants = [child.pid for child in supervisor.children(recursive=True)]
    assert set(pids) <= set(descendants)
    assert slow_mesh.stop() == 0
    # The workers of a service end when their pipe does, just after the service itself.
    until(lambda: not any(lives(pid) for pid in descendants), 10, "all descendants have ended")


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
