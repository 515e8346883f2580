"""`ragmesh tenants`: what a tenant has, and its end."""

from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table

from cli.api import Api
from cli.bootstrap import LOCAL_CONSUMER
from cli.console import Failure, Screen
from cli.options import JsonOption, LangOption, command

tenants = typer.Typer(
    no_args_is_help=True,
    help="Count or delete what a tenant has. Needs the gateway itself: Kong blocks /v1/admin.",
)
Name = Annotated[str, typer.Argument(help="The tenant, as its tokens call it.")]
ConsumerOption = Annotated[str, typer.Option(help="Whose tenant it is: `iss` of its tokens.")]


@tenants.command()
def show(
    tenant: Name,
    consumer: ConsumerOption = LOCAL_CONSUMER,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Count what a tenant has in every store.

    Example:

      ragmesh tenants show acme --consumer acme
    """
    with command(as_json, lang) as session, Api(session.settings) as api:
        answer = api.call_again("GET", path_of(tenant), params={"consumer": consumer})
        session.screen.json(answer)
        print_counts(session.screen, contents=answer["contents"])


@tenants.command()
def delete(
    tenant: Name,
    consumer: ConsumerOption = LOCAL_CONSUMER,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Delete everything that a tenant has: collections with vectors and files, sessions, usage.

    Afterwards every store is counted anew; ends with status 1 unless nothing is left. Revoke the
    tenant's keys first: a valid token may write again.

    Example:

      ragmesh tenants delete acme --consumer acme
    """
    with command(as_json, lang) as session, Api(session.settings) as api:
        if not yes:
            typer.confirm(f"Delete everything of the tenant {tenant} of {consumer}?", abort=True)
        answer = api.call("DELETE", path_of(tenant), params={"consumer": consumer})
        if not answer["complete"]:
            raise Failure(f"Something is left: {answer['left']}", code="tenant_not_empty")
        session.screen.json(answer)
        print_counts(session.screen, removed=answer["removed"], left=answer["left"])


def path_of(tenant: str) -> str:
    return f"/v1/admin/tenants/{quote(tenant, safe='')}"


def print_counts(screen: Screen, **columns: dict[str, Any]) -> None:
    """A row a store."""
    if screen.as_json:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("", *columns):
        table.add_column(name, justify="right" if name else "left")
    for store in next(iter(columns.values())):
        table.add_row(store, *(str(counts[store]) for counts in columns.values()))
    screen.out.print(table)
