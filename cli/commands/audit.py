"""`ragmesh audit`: who did what on keys, tokens, collections, documents and tenants."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table

from cli.console import Failure
from cli.options import JsonOption, LangOption, command
from gateway.actions import ACTIONS
from services.runtime.settings import load

if TYPE_CHECKING:
    from gateway.store.audit import AuditStore

audit = typer.Typer(
    no_args_is_help=True,
    help="Read the audit log of the gateway's store (RAGMESH_DATA, or DATABASE_URL); verify it.",
)
T = TypeVar("T")


@audit.command("list")
def list_entries(
    action: Annotated[str | None, typer.Option(help=f"Only these: {', '.join(ACTIONS)}.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 50,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """List who did what, newest first.

    Example:

      ragmesh audit list --action key.revoke
    """
    with command(as_json, lang) as session:
        if action is not None and action not in ACTIONS:
            raise Failure(f"There is no action {action!r}.", code="action_unknown")
        entries = asyncio.run(with_store(lambda store: store.read(action=action, limit=limit)))
        session.screen.json({"entries": [asdict(entry) for entry in entries]})
        if not as_json:
            table = Table(box=None, pad_edge=False)
            for column in ("number", "at", "consumer", "subject", "action", "target", "outcome"):
                table.add_column(column, overflow="fold")
            for entry in entries:
                told = entry.event
                table.add_row(
                    str(entry.number), told.at[:19] + "Z", told.consumer, told.subject,
                    told.action, told.target, told.outcome,
                )  # fmt: skip
            session.screen.out.print(table)


@audit.command()
def verify(
    head: Annotated[
        str | None,
        typer.Option(help="A NUMBER:HASH noted earlier, which must still be there."),
    ] = None,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Walk along the chain of hashes. Ends with status 1 where an entry was changed, taken out or
    put in; note what it prints elsewhere, and give it as --head next time, to see whether
    entries were cut off at the end.

    Example:

      ragmesh audit verify --head "$(cat audit.head)"
    """
    with command(as_json, lang) as session:
        found = asyncio.run(with_store(lambda store: store.verify()))
        if found.broken_at is not None:
            raise Failure(
                f"The chain is broken at entry {found.broken_at}; {found.entries} before it fit.",
                code="audit_broken",
            )
        if head is not None and not asyncio.run(with_store(lambda store: holds(store, head))):
            raise Failure(f"The entry {head} is not in the log any more.", code="audit_cut_off")
        session.screen.line(f"{found.entries}:{found.head}")
        session.screen.json({"entries": found.entries, "head": found.head})


async def with_store(work: Callable[["AuditStore"], Awaitable[T]]) -> T:
    """Raises FailedPrecondition: DATABASE_UNAVAILABLE."""
    # The store's libraries take as long to import as the rest of the command.
    from gateway.settings import GatewaySettings  # noqa: PLC0415
    from gateway.store.audit import AuditStore  # noqa: PLC0415
    from gateway.store.database import open_database  # noqa: PLC0415

    engine = await open_database(load(GatewaySettings).store_url)
    try:
        return await work(AuditStore(engine))
    finally:
        await engine.dispose()


async def holds(store: "AuditStore", head: str) -> bool:
    """Whether the entry NUMBER:HASH is there; `verify` has said that its hash is right."""
    number, _, digest = head.partition(":")
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        return False
    found = await store.read(before=int(number) + 1, limit=1)
    return bool(found) and (found[0].number, found[0].hash) == (int(number), digest)
