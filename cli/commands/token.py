"""`ragmesh token`: issue a bearer token, or refuse one."""

import asyncio
import re
import time
from typing import Annotated

import typer

from cli.bootstrap import LOCAL_CONSUMER, LOCAL_TENANT
from cli.console import Failure
from cli.options import JsonOption, LangOption, command
from gateway.credentials import SCOPES
from gateway.keys import KeyFacts, Keyring
from services.runtime.settings import load

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LIFETIME = re.compile(r"(\d{1,9})([smhd]?)")

tokens = typer.Typer(invoke_without_command=True)


@tokens.callback()
def token(
    context: typer.Context,
    *,
    tenant: Annotated[
        str | None,
        typer.Option(help="The tenant. Default: the one of the admin token, else the consumer's."),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="A scope; repeat, or separate by spaces. Default: all of the consumer's."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model it may use; repeat for more. Default: all of the consumer's."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            help="A group of access lists the user is in; repeat. '*' reads all of the tenant."
        ),
    ] = None,
    ttl: Annotated[str, typer.Option(help="How long it lives: 900, 15m, 12h, 30d.")] = "1h",
    subject: Annotated[str, typer.Option(help="The user: `sub`.")] = "operator",
    consumer: Annotated[str, typer.Option(help="Whose key signs it: `iss`.")] = LOCAL_CONSUMER,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Issue a token, signed by the newest key of a consumer.

    Examples:

      ragmesh token

      ragmesh token --tenant acme --scope chat --scope search --ttl 15m

      curl -H "Authorization: Bearer $(ragmesh token)" http://127.0.0.1:8000/v1/models
    """
    if context.invoked_subcommand is not None:
        return
    with command(as_json, lang) as session:
        lifetime = parse_lifetime(ttl)
        keyring = Keyring(session.settings.data)
        mine = [key for key in keyring.facts() if key.consumer == consumer]
        allowed = mine[-1].scopes if mine else SCOPES
        issued = keyring.issue(
            consumer=consumer,
            subject=subject,
            tenant=tenant or _usual_tenant(consumer, mine),
            scopes=" ".join(scope).split() if scope else allowed,
            models=model or (),
            groups=group or (),
            lifetime=lifetime,
        )
        session.screen.line(issued)
        session.screen.json({"token": issued, "expires_at": int(time.time()) + lifetime})


@tokens.command("revoke")
def revoke_token(
    token: Annotated[str, typer.Argument(help="Its `jti`, or the token itself.")],
    consumer: Annotated[
        str | None,
        typer.Option(help="Who issued it: `iss`. Default: the token's, or `local` for a jti."),
    ] = None,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Refuse one token from now on: every gateway knows within a second.

    Writes to the gateway's store (RAGMESH_DATA, or DATABASE_URL where it is replicated).

    Example:

      ragmesh token revoke 5f2c0d6a4b1e4c0f9d8e7a6b5c4d3e2f
    """
    # The store needs the gateway's own libraries, which the command alone does without.
    from cli.audit import recorded  # noqa: PLC0415
    from cli.revocation import name_of, revoke  # noqa: PLC0415
    from gateway.settings import GatewaySettings  # noqa: PLC0415

    with command(as_json, lang) as session:
        name = name_of(token, consumer)
        with recorded("token.revoke", f"{name.consumer}/{name.token_id}"):
            news = asyncio.run(revoke(load(GatewaySettings), name))
        session.screen.line(name.token_id)
        session.screen.json(
            {"revoked": name.token_id, "consumer": name.consumer, "was_revoked": not news}
        )


def parse_lifetime(text: str) -> int:
    """Seconds of ``900``, ``15m``, ``12h`` or ``30d``. Raises Failure."""
    match = _LIFETIME.fullmatch(text.strip().lower())
    seconds = int(match[1]) * _UNITS[match[2] or "s"] if match else 0
    if seconds <= 0:
        raise Failure(f"--ttl {text!r} is no lifetime: write 900, 15m, 12h or 30d.", code="bad_ttl")
    return seconds


def _usual_tenant(consumer: str, facts: list[KeyFacts]) -> str | None:
    """The admin token's tenant, or the one a consumer has; else the token's subject decides."""
    if consumer == LOCAL_CONSUMER:
        return LOCAL_TENANT
    tenants = facts[-1].tenants if facts else ()
    return tenants[0] if len(tenants) == 1 and tenants[0] != "*" else None
