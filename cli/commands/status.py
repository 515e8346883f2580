"""`ragmesh status`: what runs and how it is."""

import asyncio
import time
from typing import Any

import typer
from rich.table import Table

from cli.options import JsonOption, LangOption, Session, command
from cli.probes import gateway_health, is_serving
from cli.settings import SERVICES, CommandSettings
from cli.state import load_state

EXIT_NOT_SERVING = 1
_COLOURS = {True: "green", False: "red"}


def status(as_json: JsonOption = False, lang: LangOption = None) -> None:
    """Show the processes of the mesh and how each is.

    The status is 0 when every process serves.

    Examples:

      ragmesh status

      ragmesh status --json | jq .serving
    """
    with command(as_json, lang) as session:
        report = asyncio.run(_report(session.settings))
        session.screen.json(report)
        _show(session, report)
        if not report["serving"]:
            raise typer.Exit(EXIT_NOT_SERVING)


async def _report(settings: CommandSettings) -> dict[str, Any]:
    state = load_state(settings.state_file)
    alive = state is not None and state.supervisor.find() is not None
    names = ("gateway", *SERVICES)
    if not alive or state is None:
        return {"running": False, "serving": False, "data": str(settings.data), "processes": {}}
    answers, health = await asyncio.gather(
        asyncio.gather(*(is_serving(settings, name) for name in names)),
        gateway_health(settings.base_url),
    )
    processes = {}
    for name, serves in zip(names, answers, strict=True):
        entry = state.processes.get(name)
        identity = entry.id if entry else None
        processes[name] = {
            "pid": identity.pid if identity else None,
            "state": entry.state if entry else "unknown",
            "serving": serves,
            "restarts": entry.restarts if entry else 0,
            "uptime_seconds": round(time.time() - identity.started) if identity else None,
            "grpc": settings.probe_target(name),
        }
    return {
        "running": True,
        "serving": all(answers),
        "phase": state.phase,
        "data": str(settings.data),
        "url": state.url,
        "supervisor_pid": state.supervisor.pid,
        "processes": processes,
        "health": health,
    }


def _show(session: Session, report: dict[str, Any]) -> None:
    screen = session.screen
    if screen.as_json:
        return
    if not report["running"]:
        screen.say("down.none", data=report["data"])
        return
    screen.line(f"{report['url']}  ({report['data']}, pid {report['supervisor_pid']})")
    table = Table(box=None, pad_edge=False)
    for column in ("process", "pid", "state", "serving", "restarts", "up", "gRPC"):
        table.add_column(column)
    for name, entry in report["processes"].items():
        seconds = entry["uptime_seconds"]
        table.add_row(
            name,
            str(entry["pid"] or "-"),
            entry["state"],
            "yes" if entry["serving"] else "no",
            str(entry["restarts"]),
            f"{seconds} s" if seconds is not None else "-",
            entry["grpc"],
            style=None if entry["serving"] else _COLOURS[False],
        )
    screen.out.print(table)
