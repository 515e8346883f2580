"""`ragmesh up`: start the mesh on this machine and keep it alive."""

import asyncio
import os
import subprocess
import sys
import time
from typing import Annotated, Any

import typer

from cli.addresses import check_addresses
from cli.bootstrap import LOCAL_CONSUMER, prepare
from cli.console import Failure, Screen
from cli.demo import COLLECTION, run_demo
from cli.options import JsonOption, LangOption, Session, command
from cli.probes import unavailable
from cli.settings import CommandSettings
from cli.state import MeshState, ProcessId, hold_lock, load_state
from cli.supervisor import START_TIMEOUT, Supervisor, end_leftovers

_POLL = 0.1
_LEFTOVER_GRACE = 5.0


def up(
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay attached; Ctrl-C ends the mesh.")
    ] = False,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Ingest the sample documents and ask about them."),
    ] = False,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Start the mesh: preprocess, retrieve, infer, postprocess and the gateway.

    Each is a process of its own, started again when it ends. The first start makes an ES256 key
    and the consumer `local`; every start writes admin.token afresh.

    Examples:

      ragmesh up                              in the background

      ragmesh up --foreground --demo          with the samples, until Ctrl-C

      RAGMESH_DATA=b RAGMESH_PORT=8100 RAGMESH_GRPC_BASE=51050 RAGMESH_METRICS_BASE=9200 ragmesh up
    """
    with command(as_json, lang) as session:
        if foreground:
            asyncio.run(_stay(session, demo=demo))
        else:
            _go_to_background(session, demo=demo)


async def _stay(session: Session, *, demo: bool) -> None:
    settings, screen = session.settings, session.screen
    began = time.monotonic()
    settings.data.mkdir(parents=True, exist_ok=True)
    with hold_lock(settings.lock_file, settings.data):
        end_leftovers(
            settings.state_file,
            _LEFTOVER_GRACE,
            lambda name, pid: screen.note("up.leftover", name=name, pid=pid),
        )
        check_addresses(settings)
        if prepare(settings):
            screen.say("up.first", consumer=LOCAL_CONSUMER)
        screen.say("up.starting", data=settings.data)
        me = ProcessId.of(os.getpid())
        if me is None:  # for the type checker: this process runs
            raise Failure("The system does not tell this process's start time.")
        supervisor = Supervisor(settings, screen, me)
        supervisor.handle_signals()
        failure: Failure | None = None
        try:
            await supervisor.start()
            if not supervisor.stopping.is_set():
                screen.say("up.serving", style="green", seconds=time.monotonic() - began)
                missing = await unavailable(settings.base_url)
                if missing:
                    screen.note("up.unavailable", names=", ".join(missing))
                # A thread, so that the processes stay watched; its calls end when the gateway does.
                demo = demo and not missing
                shown = await asyncio.to_thread(run_demo, settings, screen) if demo else {}
                _tell(settings, screen, shown, foreground=True)
                await supervisor.run()
        except Failure as error:
            failure = error
            raise
        finally:
            screen.say("up.stopping")
            await supervisor.aclose(failure)
            screen.say("up.stopped")


def _go_to_background(session: Session, *, demo: bool) -> None:
    """Start `up --foreground` detached, and return when it serves."""
    settings, screen = session.settings, session.screen
    settings.data.mkdir(parents=True, exist_ok=True)
    with hold_lock(settings.lock_file, settings.data):
        pass  # a mesh that already runs is told at once
    check_addresses_of_new_mesh(settings)
    settings.logs.mkdir(exist_ok=True)
    log = settings.logs / "up.log"
    screen.say("up.starting", data=settings.data)
    began = time.monotonic()
    with log.open("wb") as file:
        supervisor = subprocess.Popen(
            [sys.executable, "-P", "-m", "cli", "up", "--foreground"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    state = _await_start(settings, supervisor)
    if state is None or state.phase != "serving":
        said = log.read_text("utf-8", "replace").strip()
        raise Failure(f"The mesh did not start:\n{said}", code="start_failed")
    screen.say("up.serving", style="green", seconds=time.monotonic() - began)
    missing = asyncio.run(unavailable(settings.base_url))
    if missing:
        screen.note("up.unavailable", names=", ".join(missing))
    shown = run_demo(settings, screen) if demo and not missing else {}
    _tell(settings, screen, shown, foreground=False)


def check_addresses_of_new_mesh(settings: CommandSettings) -> None:
    """Check the ports, unless leftovers of this data hold them: the supervisor ends those."""
    state = load_state(settings.state_file)
    held = state is not None and any(
        entry.id and entry.id.find() for entry in state.processes.values()
    )
    if not held:
        check_addresses(settings)


def _await_start(
    settings: CommandSettings, supervisor: "subprocess.Popen[bytes]"
) -> MeshState | None:
    deadline = time.monotonic() + START_TIMEOUT + 30
    while time.monotonic() < deadline:
        state = load_state(settings.state_file)
        ours = state is not None and state.supervisor.pid == supervisor.pid
        if ours and state is not None and state.phase in ("serving", "failed"):
            return state
        if supervisor.poll() is not None:
            return None
        time.sleep(_POLL)
    supervisor.terminate()
    return None


def _tell(
    settings: CommandSettings, screen: Screen, shown: dict[str, Any], *, foreground: bool
) -> None:
    url, token = settings.base_url, settings.admin_token
    curl = (
        f'curl -sS {url}/v1/query -H "Authorization: Bearer $(cat {token})" '
        "-H 'Content-Type: application/json' "
        f'-d \'{{"query": "Where is the admin token written?", "collection": "{COLLECTION}"}}\''
    )
    screen.say("up.url", url=url)
    screen.say("up.docs", url=url)
    screen.say("up.token", path=token)
    screen.say("up.logs", path=settings.logs)
    if shown:
        screen.say("up.try")
        screen.line(f"  {curl}", style="bold")
    screen.say("up.foreground" if foreground else "up.background")
    screen.json({"url": url, "token_path": str(token), "curl": curl, "demo": shown or None})
