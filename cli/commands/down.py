"""`ragmesh down`: end the mesh of a data directory."""

import time

from cli.console import Failure
from cli.options import JsonOption, LangOption, Session, command
from cli.state import load_state
from cli.supervisor import end_leftovers

_POLL = 0.1
_MARGIN = 15.0
"""Seconds past the processes' own grace: the gateway ends before the rest, each may be killed."""


def down(as_json: JsonOption = False, lang: LangOption = None) -> None:
    """End the mesh of this data directory, the gateway first.

    Only processes that the mesh recorded are ended, each known by its pid and start time.

    Examples:

      ragmesh down

      RAGMESH_DATA=other ragmesh down
    """
    with command(as_json, lang) as session:
        ended = _end(session)
        session.screen.say("down.done" if ended else "down.none", data=session.settings.data)
        session.screen.json({"ended": ended})


def _end(session: Session) -> int:
    """How many processes were ended."""
    settings = session.settings
    state = load_state(settings.state_file)
    if state is None:
        return 0
    running = [entry for entry in state.processes.values() if entry.id and entry.id.find()]
    supervisor = state.supervisor.find()
    if supervisor is not None:
        supervisor.terminate()
        grace = 2 * (settings.drain_delay + settings.drain_grace) + _MARGIN
        deadline = time.monotonic() + grace
        while state.supervisor.find() is not None:
            if time.monotonic() > deadline:
                raise Failure(
                    f"The mesh's supervisor (pid {supervisor.pid}) does not end.", code="stuck"
                )
            time.sleep(_POLL)
    # A supervisor that was killed could not end them.
    end_leftovers(settings.state_file, settings.drain_grace, lambda _name, _pid: None)
    return len(running)
