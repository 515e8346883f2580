"""The processes of a mesh on one machine: started together, kept alive, ended in order."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cli import tether
from cli.bootstrap import renew_admin_token
from cli.console import Failure, Screen
from cli.journal import Journal
from cli.probes import wait_serving
from cli.settings import SERVICES, CommandSettings
from cli.state import MeshState, ProcessId, ProcessState, end, load_state
from services.runtime.settings import EXIT_MISCONFIGURED

START_TIMEOUT = 180.0
"""Seconds until every process must serve; loading an encoder on a slow disk is in it."""
START_ATTEMPTS = 3
"""Deaths of one process after which a mesh that never served is given up."""
FIRST_DELAY = 0.2
LONGEST_DELAY = 30.0
STABLE_AFTER = 60.0
"""Seconds of life after which a process's next death counts as its first."""
TOKEN_RENEWAL = 86400.0
_LOG_INTERVAL = 0.5
_UMASK = 0o077
"""Of the processes: indexes and sessions hold what users wrote, so only their owner reads them."""
_KILL_MARGIN = 3.0

# -P keeps the working directory off the module path: a folder called `services` in it must not be
# run. The gateway is started last and ended first.
PROGRAMS: Mapping[str, Sequence[str]] = {
    name: (sys.executable, "-P", "-m", module)
    for name, module in [*((name, f"services.{name}") for name in SERVICES), ("gateway", "gateway")]
}


class Supervisor:
    """Runs a mesh until it is told to stop.

    The state file follows every change, so that `status` and `down` need to ask nobody.
    """

    def __init__(
        self,
        settings: CommandSettings,
        screen: Screen,
        supervisor: ProcessId,
        *,
        programs: Mapping[str, Sequence[str]] = PROGRAMS,
    ) -> None:
        """Args:
        supervisor: this process, for the state file.
        programs: service -> the command that serves it.
        """
        self._programs = programs
        self._settings = settings
        self._screen = screen
        self._state = MeshState(supervisor, settings.base_url)
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._journals = {name: Journal(settings.logs / f"{name}.log") for name in self._programs}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._failed: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        self._serving_once = False

    @property
    def stopping(self) -> asyncio.Event:
        """Set by a signal: the mesh is to end."""
        return self._stop

    def handle_signals(self) -> None:
        """Ctrl-C and SIGTERM stop in order; a second one does not wait for anybody."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)

    async def start(self) -> None:
        """Start every process and return when all serve, or when a signal came first.

        Raises:
            Failure: a process refuses its settings, or not all serve in time.
        """
        for name in self._programs:
            self._state.processes[name] = ProcessState()
            await self._spawn(name)
            self._watchers[name] = asyncio.create_task(self._watch(name))
        self._watchers["logs"] = asyncio.create_task(self._follow_logs())
        self._watchers["token"] = asyncio.create_task(self._renew_token())
        ready = asyncio.create_task(self._wait_all())
        stop = asyncio.create_task(self._stop.wait())
        waiting: set[asyncio.Future[Any]] = {ready, stop, self._failed}
        done, _ = await asyncio.wait(
            waiting,
            timeout=START_TIMEOUT,
            return_when=asyncio.FIRST_COMPLETED,
        )
        stop.cancel()
        if ready not in done:
            ready.cancel()
            with suppress(asyncio.CancelledError):
                await ready
        if self._failed in done:
            raise self._failed.result()
        if not done:
            raise self._too_slow()
        if ready in done:
            self._serving_once = True
            self._enter("serving")

    async def run(self) -> None:
        """Return when the mesh is to end."""
        await self._stop.wait()

    async def aclose(self, failure: Failure | None = None) -> None:
        """End every process: the gateway first, so that nothing new comes in, then the rest."""
        self._stop.set()
        self._enter("stopping")
        for task in self._watchers.values():
            task.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        await self._end("gateway")
        await asyncio.gather(*(self._end(name) for name in SERVICES))
        self._state.error = failure.text if failure else ""
        self._enter("failed" if failure else "stopped")

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def _spawn(self, name: str) -> None:
        tied = [sys.executable, "-I", "-S", str(Path(tether.__file__)), str(os.getpid())]
        with self._journals[name].open() as file:
            child = await asyncio.create_subprocess_exec(
                *tied,
                *self._programs[name],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                # A session of its own: Ctrl-C reaches the supervisor alone, which keeps the order.
                start_new_session=True,
                umask=_UMASK,
            )
        self._children[name] = child
        state = self._state.processes[name]
        state.id, state.state = ProcessId.of(child.pid), "starting"
        self._save()

    async def _watch(self, name: str) -> None:
        """Start the process again whenever it ends."""
        deaths = 0
        while True:
            born = time.monotonic()
            status = await self._children[name].wait()
            lasted = time.monotonic() - born
            state = self._state.processes[name]
            deaths = 1 if lasted > STABLE_AFTER else deaths + 1
            hopeless = status == EXIT_MISCONFIGURED or deaths > START_ATTEMPTS
            if hopeless and not self._serving_once:
                self._fail(name)
                return
            delay = min(FIRST_DELAY * 2 ** (deaths - 1), LONGEST_DELAY)
            state.state, state.restarts = "waiting", state.restarts + 1
            self._save()
            self._screen.note(
                "up.exited",
                name=name,
                how=_how(status),
                delay=delay,
                log=self._journals[name].path,
            )
            for line in self._journals[name].last_lines():
                self._screen.err.print(f"  {line}", style="dim")
            await asyncio.sleep(delay)
            await self._spawn(name)
            # Tells when it serves again, and stops asking when it dies before.
            serving = asyncio.create_task(self._wait_serving(name, announce=self._serving_once))
            ended = asyncio.create_task(self._children[name].wait())
            try:
                await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                serving.cancel()
                ended.cancel()

    async def _wait_all(self) -> None:
        await asyncio.gather(*(self._wait_serving(name) for name in self._programs))

    async def _wait_serving(self, name: str, *, announce: bool = False) -> None:
        await wait_serving(self._settings, name)
        self._state.processes[name].state = "serving"
        self._save()
        if announce:
            self._screen.note("up.recovered", style="green", name=name)

    async def _follow_logs(self) -> None:
        while True:
            await asyncio.sleep(_LOG_INTERVAL)
            for name, journal in self._journals.items():
                for line in journal.errors():
                    self._screen.err.print(f"{name}: {line}", style="red")

    async def _renew_token(self) -> None:
        while True:
            await asyncio.sleep(TOKEN_RENEWAL)
            renew_admin_token(self._settings)

    async def _end(self, name: str) -> None:
        child = self._children.get(name)
        if child is None:
            return
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.terminate()
            grace = self._settings.drain_delay + self._settings.drain_grace + _KILL_MARGIN
            ended = asyncio.create_task(child.wait())
            hurry = asyncio.create_task(self._hurry.wait())
            await asyncio.wait({ended, hurry}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()
                self._screen.note("up.killed", name=name)
            await ended
        state = self._state.processes[name]
        state.id, state.state = None, "stopped"
        self._save()

    def _fail(self, name: str) -> None:
        lines = self._journals[name].last_lines() or ["it gave no reason"]
        failure = Failure(f"{name} did not start:\n  " + "\n  ".join(lines), code="start_failed")
        if not self._failed.done():
            self._failed.set_result(failure)

    def _too_slow(self) -> Failure:
        late = [n for n, state in self._state.processes.items() if state.state != "serving"]
        said = [
            f"{name} ({self._journals[name].path}): {line}"
            for name in late
            for line in self._journals[name].last_lines()[-1:]
        ]
        text = f"Not serving after {START_TIMEOUT:.0f} s: {', '.join(late)}."
        return Failure("\n  ".join([text, *said]), code="start_failed")

    def _enter(self, phase: str) -> None:
        self._state.phase = phase
        self._save()

    def _save(self) -> None:
        self._state.save(self._settings.state_file)


def end_leftovers(state_file: Path, grace: float, told: Callable[[str, int], None]) -> None:
    """End what an earlier supervisor of this data left running; only what is surely its own.

    Args:
        grace: seconds before a process is killed.
        told: hears the name and pid of each.
    """
    state = load_state(state_file)
    if state is None:
        return
    # The gateway is the last that was started and the first to go.
    for name in reversed(list(state.processes)):
        identity = state.processes[name].id
        process = identity.find() if identity else None
        if process is not None:
            told(name, process.pid)
            end(process, grace)


def _how(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
