"""The operator's command, `ragmesh`."""

from typing import Annotated

import typer

from cli.commands.ask import ask
from cli.commands.audit import audit
from cli.commands.collections import collections
from cli.commands.doctor import doctor
from cli.commands.down import down
from cli.commands.ingest import ingest
from cli.commands.keys import keys
from cli.commands.models import models
from cli.commands.search import search
from cli.commands.status import status
from cli.commands.sync import sync
from cli.commands.tenants import tenants
from cli.commands.token import tokens
from cli.commands.up import up
from services.runtime.version import VERSION

app = typer.Typer(
    name="ragmesh",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run and use a ragmesh: documents in, questions answered with citations.",
    epilog="RAGMESH_DATA (var/), RAGMESH_PORT (8000), RAGMESH_GRPC_BASE (50050) and "
    "RAGMESH_METRICS_BASE (9100) say where a mesh lives; RAGMESH_URL and RAGMESH_TOKEN reach "
    "another one. NO_COLOR turns colours off.",
)
for _command in (up, down, status, ingest, sync, ask, search, models, doctor):
    app.command()(_command)
app.add_typer(collections, name="collections")
app.add_typer(tokens, name="token")
app.add_typer(keys, name="keys")
app.add_typer(tenants, name="tenants")
app.add_typer(audit, name="audit")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ragmesh {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass  # the option's callback has done what there is to do


def main() -> None:
    """The entry point of the installed command."""
    app()


if __name__ == "__main__":
    main()
