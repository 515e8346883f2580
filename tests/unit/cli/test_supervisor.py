"""Processes are started, kept alive and ended in order; nothing of a stranger's is touched."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import psutil
import pytest

from cli.bootstrap import prepare
from cli.console import Failure, Screen
from cli.probes import is_serving
from cli.settings import SERVICES, CommandSettings
from cli.state import MeshState, ProcessId, ProcessState, hold_lock, load_state
from cli.supervisor import Supervisor, end_leftovers
from tests.unit.cli.conftest import STANDIN, Programs

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def supervised(
    settings: CommandSettings, programs: Mapping[str, Sequence[str]]
) -> AsyncIterator[Supervisor]:
    prepare(settings)
    me = ProcessId.of(os.getpid())
    assert me is not None
    supervisor = Supervisor(settings, Screen(), me, programs=programs)
    try:
        yield supervisor
    finally:
        await supervisor.aclose()


def pid_of(settings: CommandSettings, name: str) -> int:
    state = load_state(settings.state_file)
    assert state is not None
    identity = state.processes[name].id
    assert identity is not None
    return identity.pid


async def until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.05)


async def test_all_serve_and_all_end(settings: CommandSettings, programs: Programs) -> None:
    async with supervised(settings, programs()) as supervisor:
        await supervisor.start()
        pids = [pid_of(settings, name) for name in ("gateway", *SERVICES)]
        assert len(set(pids)) == 5
        assert all([await is_serving(settings, name) for name in ("gateway", *SERVICES)])
        state = load_state(settings.state_file)
        assert state is not None
        assert state.phase == "serving"
    assert not any(psutil.pid_exists(pid) for pid in pids)
    state = load_state(settings.state_file)
    assert state is not None
    assert state.phase == "stopped"


async def test_a_killed_process_comes_back(settings: CommandSettings, programs: Programs) -> None:
    async with supervised(settings, programs()) as supervisor:
        await supervisor.start()
        first = pid_of(settings, "infer")
        os.kill(first, signal.SIGKILL)

        def back() -> bool:
            state = load_state(settings.state_file)
            assert state is not None
            entry = state.processes["infer"]
            return entry.state == "serving" and entry.id is not None and entry.id.pid != first

        await until(back)
        assert await is_serving(settings, "infer")
        state = load_state(settings.state_file)
        assert state is not None
        assert state.processes["infer"].restarts == 1
        assert state.processes["gateway"].restarts == 0


@pytest.mark.parametrize("mode", ["refuses", "dies"])
async def test_a_process_that_cannot_start_ends_the_start(
    settings: CommandSettings, programs: Programs, mode: str
) -> None:
    async with supervised(settings, programs(infer=mode)) as supervisor:
        with pytest.raises(Failure, match="infer did not start:\n  infer: the setting X is wrong"):
            await supervisor.start()


SUPERVISE = """
import asyncio, os, sys, time
from cli.console import Screen
from cli.settings import CommandSettings
from cli.state import ProcessId
from cli.supervisor import Supervisor
from cli.bootstrap import prepare
async def main():
    settings = CommandSettings()
    prepare(settings)
    programs = {n: (sys.executable, sys.argv[1], n) for n in ("infer", "gateway")}
    s = Supervisor(settings, Screen(), ProcessId.of(os.getpid()), programs=programs)
    await s.start()
    await s.run()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's promise is Linux's")
async def test_processes_die_with_a_killed_supervisor(settings: CommandSettings) -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", SUPERVISE, str(STANDIN))

    def serving() -> bool:
        state = load_state(settings.state_file)
        return state is not None and state.phase == "serving"

    await until(serving)
    pids = [pid_of(settings, name) for name in ("infer", "gateway")]
    child.kill()
    await child.wait()
    await until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_leftovers_are_ended_and_strangers_are_not(settings: CommandSettings) -> None:
    settings.data.mkdir()
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    ours, strangers = subprocess.Popen(sleeper), subprocess.Popen(sleeper)
    try:
        me, mine = ProcessId.of(os.getpid()), ProcessId.of(ours.pid)
        assert me is not None
        assert mine is not None
        # The pid was ours once: another process has it now, started later.
        reused = ProcessId(strangers.pid, mine.started - 3600)
        state = MeshState(
            me, "http://x", processes={"infer": ProcessState(mine), "gateway": ProcessState(reused)}
        )
        state.save(settings.state_file)
        told: list[tuple[str, int]] = []
        end_leftovers(settings.state_file, 5.0, lambda name, pid: told.append((name, pid)))
        assert told == [("infer", ours.pid)]
        assert ours.wait(5) is not None
        assert strangers.poll() is None
    finally:
        for process in (ours, strangers):
            process.kill()
            process.wait()


def test_one_supervisor_a_data_directory(settings: CommandSettings) -> None:
    settings.data.mkdir()
    with (
        hold_lock(settings.lock_file, settings.data),
        pytest.raises(Failure, match=f"already runs on .* \\(pid {os.getpid()}\\)"),
        hold_lock(settings.lock_file, settings.data),
    ):
        pass
    with hold_lock(settings.lock_file, settings.data):
        pass


def test_a_state_file_of_another_making_is_not_acted_upon(settings: CommandSettings) -> None:
    settings.data.mkdir()
    for text in ("", "[]", '{"supervisor": 5}', '{"supervisor": {"pid": 1}}'):
        settings.state_file.write_text(text)
        assert load_state(settings.state_file) is None
