"""`ragmesh keys`: consumers, their keys, and the certificates between the services."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from cli.audit import recorded
from cli.bootstrap import prepare
from cli.console import Failure
from cli.manifests import manifests
from cli.options import JsonOption, LangOption, command
from gateway.certificates import ensure_certificates
from gateway.credentials import SCOPES
from gateway.files import GROUP, write_atomically
from gateway.jwks import fetch
from gateway.keys import Keyring

TLS_FOLDER = "tls"
"""Under the data directory."""
Algorithm = Annotated[
    Literal["ES256", "RS256"] | None,
    typer.Option(help="Default: ES256 for a new consumer, the last key's for a rotation."),
]

keys = typer.Typer(
    no_args_is_help=True,
    help="Make, rotate and revoke the keys that sign tokens; make certificates.",
)


@keys.command()
def init(as_json: JsonOption = False, lang: LangOption = None) -> None:
    """Make whatever is missing: the consumer `local` with its key, kong.yml, admin.token and the
    certificates between the services. Safe to repeat.

    Example:

      ragmesh keys init
    """
    with command(as_json, lang) as session:
        first = prepare(session.settings)
        renewed = ensure_certificates(session.settings.data / TLS_FOLDER)
        session.screen.line(str(session.settings.data))
        session.screen.json({"first": first, "certificates": renewed})


@keys.command()
def create(
    consumer: Annotated[str, typer.Argument(help="The issuer's name: `iss` of its tokens.")],
    *,
    tenant: Annotated[
        list[str] | None,
        typer.Option(
            help="A tenant its tokens may name; repeat for more. Default: the consumer's "
            "name. '*' trusts it with every tenant."
        ),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="A scope its tokens may carry; repeat for more. Default: all."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model its tokens may use; repeat for more. Default: all."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            help="A group of access lists its tokens may claim; repeat for more. '*' is every one. "
            "Default: none."
        ),
    ] = None,
    algorithm: Algorithm = None,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Make a consumer and its first key, and render kong.yml.

    Example:

      ragmesh keys create acme --tenant acme --scope chat --scope search
    """
    with command(as_json, lang) as session:
        keyring = Keyring(session.settings.data)
        with recorded("key.create", consumer) as record:
            kid = keyring.create(
                consumer,
                tenants=tenant or [consumer],
                scopes=scope or SCOPES,
                models=model or (),
                groups=group or (),
                algorithm=algorithm or "ES256",
            )
            record.target = kid
        session.screen.line(kid)
        session.screen.json({"kid": kid, "consumer": consumer, "rendered": str(keyring.rendered)})


@keys.command()
def rotate(
    consumer: Annotated[str, typer.Argument(help="The consumer.")],
    algorithm: Algorithm = None,
    standby: Annotated[
        bool,
        typer.Option(
            "--standby",
            help="Let it verify only, until `promote`: behind Kong, which must reload first.",
        ),
    ] = False,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Give a consumer a new key, which signs from now on.

    The older keys go on verifying: revoke each when the last of its tokens has expired.

    Example:

      ragmesh keys rotate local
    """
    with command(as_json, lang) as session:
        keyring = Keyring(session.settings.data)
        with recorded("key.rotate", consumer) as record:
            kid = keyring.rotate(consumer, algorithm=algorithm, standby=standby)
            record.target = kid
        session.screen.line(kid)
        session.screen.json({"kid": kid, "consumer": consumer})


@keys.command()
def promote(
    kid: Annotated[str, typer.Argument(help="The key, as `ragmesh keys list` shows it.")],
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Let a key sign from now on, once every Kong knows it."""
    with command(as_json, lang) as session:
        with recorded("key.promote", kid):
            Keyring(session.settings.data).promote(kid)
        session.screen.line(kid)
        session.screen.json({"promoted": kid})


@keys.command()
def sync(
    *,
    tenant: Annotated[
        list[str] | None,
        typer.Option(help="A tenant that a new consumer's tokens may name; repeat for more."),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="A scope that they may carry; repeat for more. Default: all."),
    ] = None,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Render the keys of the OpenID provider (RAGMESH_OIDC_JWKS_URL) for Kong, whose keys are
    static. Repeat it more often than the provider rotates.

    Example:

      ragmesh keys sync --tenant acme --scope chat --scope search
    """
    with command(as_json, lang) as session:
        url, consumer = session.settings.oidc_jwks_url, session.settings.oidc_consumer
        if url is None:
            raise Failure("Set RAGMESH_OIDC_JWKS_URL to the provider's keys.", code="no_jwks_url")
        keyring = Keyring(session.settings.data)
        fetched = asyncio.run(fetch(url))
        with recorded("key.sync", consumer):
            found = keyring.sync(consumer, fetched, tenants=tenant or (), scopes=scope or SCOPES)
        for kid in found:
            session.screen.line(kid)
        session.screen.json({"consumer": consumer, "keys": found})


@keys.command()
def plugin(
    name: Annotated[str, typer.Argument(help="Such as rate-limiting, cors, ip-restriction.")],
    config: Annotated[
        str, typer.Argument(help="The fields of its configuration that differ, as JSON.")
    ] = "{}",
    *,
    reset: Annotated[bool, typer.Option("--reset", help="Go back to the source.")] = False,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Change a plugin of kong.yml for all routes, and render it.

    Examples:

      ragmesh keys plugin cors '{"origins": ["https://app.example"]}'

      ragmesh keys plugin rate-limiting '{"policy": "redis", "redis": {"host": "redis"}}'

      ragmesh keys plugin ip-restriction '{"allow": ["10.0.0.0/8"]}'
    """
    with command(as_json, lang) as session:
        try:
            changes = json.loads(config)
        except ValueError as error:
            raise Failure(f"This is not JSON: {config}", code="bad_json") from error
        if not isinstance(changes, dict):
            raise Failure(f"This is no JSON object: {config}", code="bad_json")
        keyring = Keyring(session.settings.data)
        keyring.configure(name, None if reset else changes)
        session.screen.line(str(keyring.rendered))
        session.screen.json({"plugin": name, "rendered": str(keyring.rendered)})


@keys.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where to; made if needed.")],
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Write what Kong needs, and no more: kong.yml, the CA's certificate and Kong's own pair.

    The files belong to the writer's group (0640), for a Kong that runs as another user of it.

    Example:

      ragmesh keys export /var/lib/kong
    """
    with command(as_json, lang) as session:
        tls = session.settings.data / TLS_FOLDER
        ensure_certificates(tls)
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        sources = {
            "kong.yml": Keyring(session.settings.data).rendered,
            "ca.crt": tls / "ca.crt",
            "tls.crt": tls / "kong.crt",
            "tls.key": tls / "kong.key",
        }
        for name, source in sources.items():
            write_atomically(folder / name, source.read_bytes(), GROUP)
        session.screen.line(str(folder))
        session.screen.json({"folder": str(folder), "files": sorted(sources)})


@keys.command()
def revoke(
    kid: Annotated[str, typer.Argument(help="The key, as `ragmesh keys list` shows it.")],
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """End a key: every token it signed is refused within a second.

    Example:

      ragmesh keys revoke local-3f9a1c2b4d5e
    """
    with command(as_json, lang) as session:
        with recorded("key.revoke", kid):
            Keyring(session.settings.data).revoke(kid)
        session.screen.line(kid)
        session.screen.json({"revoked": kid})


@keys.command("list")
def list_keys(as_json: JsonOption = False, lang: LangOption = None) -> None:
    """List the keys, the signing key of each consumer last."""
    with command(as_json, lang) as session:
        facts = Keyring(session.settings.data).facts()
        session.screen.json({"keys": [asdict(key) for key in facts]})
        if not as_json:
            table = Table(box=None, pad_edge=False)
            for column in ("key", "consumer", "alg", "created", "signs", "tenants", "scopes"):
                table.add_column(column, overflow="fold")
            for key in facts:
                table.add_row(
                    key.kid,
                    key.consumer,
                    key.algorithm,
                    key.created_at,
                    "yes" if key.can_sign else "no",
                    " ".join(key.tenants),
                    " ".join(key.scopes),
                )
            session.screen.out.print(table)


@keys.command()
def render(as_json: JsonOption = False, lang: LangOption = None) -> None:
    """Render kong.yml again from its source, keeping the consumers."""
    with command(as_json, lang) as session:
        keyring = Keyring(session.settings.data)
        keyring.render()
        session.screen.line(str(keyring.rendered))
        session.screen.json({"rendered": str(keyring.rendered)})


@keys.command("manifests")
def show_manifests(lang: LangOption = None) -> None:
    """Print kong.yml and the services' certificates as Kubernetes objects, made where missing.

    Example:

      ragmesh keys manifests | kubectl apply -f -
    """
    with command(lang=lang) as session:
        prepare(session.settings)
        folder = session.settings.data / TLS_FOLDER
        ensure_certificates(folder)
        typer.echo(manifests(Keyring(session.settings.data).rendered, folder), nl=False)


@keys.command()
def tls(
    name: Annotated[
        list[str] | None,
        typer.Option(help="A further DNS name or address in every certificate; repeat for more."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: tls under RAGMESH_DATA.")
    ] = None,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Make a CA and one certificate per service, for mTLS off loopback; renew what expires.

    Examples:

      ragmesh keys tls

      RAGMESH_TLS_DIR=var/tls RAGMESH_HOST=0.0.0.0 ragmesh up
    """
    with command(as_json, lang) as session:
        folder = out or session.settings.data / TLS_FOLDER
        renewed = ensure_certificates(folder, names=name or [])
        session.screen.line(f"{folder}: {', '.join(renewed) or '-'}")
        session.screen.json({"folder": str(folder), "renewed": renewed})
