"""Consumers and their keys: made, rotated and revoked, and tokens signed with them.

    <data>/keys/<kid>.pem   private keys, 0600 in a folder of 0700; they go nowhere else
    <data>/kong.yml         the source gateway/kong/kong.yml, with consumers and public keys
    <data>/edge.yml         what the operator changed of the source's plugins

The rendered file is also where consumers are kept: rendering again takes up a newer source and
keeps them. Rotation adds a key beside the old one, which goes on verifying until it is revoked.
Behind Kong, whose keys are read at a reload, a key first stands by, and signs once it is promoted.
"""

import fcntl
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.credentials import SCOPES, parse_consumer, read_document
from gateway.edge.options import merged, read_options, write_options
from gateway.edge.rules import Rules
from gateway.files import PRIVATE, PUBLIC, make_private_folder, sync_folder, write_atomically
from gateway.jwks import KeySet
from gateway.keysets import replaced
from services.runtime.errors import AlreadyExists, InvalidArgument, NotFound

ALGORITHMS = ("ES256", "RS256")
SOURCE = Path(__file__).parent / "kong" / "kong.yml"
RSA_BITS = 3072
OPERATOR = "operator"
"""The tag of the consumer that speaks for who runs the mesh."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What Kong accepts in a tag: no comma, no slash, nothing unprintable.
_TENANT = re.compile(r"[^,/\x00-\x20\x7f]{1,120}")
_BANNER = "# Rendered by `ragmesh keys` from gateway/kong/kong.yml: edit that one, not this.\n"


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """One key, without its private half."""

    kid: str
    consumer: str
    algorithm: str
    created_at: str
    """ISO 8601, UTC; empty when the entry was written by hand."""
    can_sign: bool
    """Whether the private half is here."""
    tenants: tuple[str, ...]
    scopes: tuple[str, ...]


class Keyring:
    """The keys of one data directory."""

    def __init__(self, data: Path, *, source: Path = SOURCE) -> None:
        self._folder = data / "keys"
        self._rendered = data / "kong.yml"
        self._options = data / "edge.yml"
        self._source = source

    @property
    def rendered(self) -> Path:
        """The file that Kong and the gateway load."""
        return self._rendered

    def create(
        self,
        consumer: str,
        *,
        tenants: Sequence[str],
        scopes: Sequence[str] = SCOPES,
        models: Sequence[str] = (),
        groups: Sequence[str] = (),
        operator: bool = False,
        algorithm: str = "ES256",
    ) -> str:
        """A new consumer with its first key; answers the key's ``kid``.

        Args:
            tenants: what its tokens may say in ``tenant`` (or ``sub``); ``*`` trusts it with all.
            models: what its tokens may use, by the names that requests use; none is all.
            groups: groups of access lists that its tokens may claim; ``*`` is every one, and lets
                them claim ``*``, which reads all of a tenant.
            operator: its administrators see past their own consumer.

        Raises:
            AlreadyExists: CONSUMER_EXISTS.
            InvalidArgument: NAME_INVALID, TENANT_INVALID, SCOPE_UNKNOWN, ALGORITHM_UNKNOWN.
        """
        _check_consumer(consumer, tenants, scopes)
        with self._changing() as consumers:
            if any(entry["username"] == consumer for entry in consumers):
                raise AlreadyExists(
                    "CONSUMER_EXISTS",
                    f"the consumer '{consumer}' exists; `ragmesh keys rotate` gives it a new key",
                )
            tags = [*_tags(tenants, scopes, models), *group_tags(groups)]
            if operator:
                tags.append(OPERATOR)
            secret = self._new_secret(consumer, algorithm)
            consumers.append({"username": consumer, "tags": tags, "jwt_secrets": [secret]})
        return str(secret["key"])

    def tag(self, consumer: str, tags: Sequence[str]) -> None:
        """Add tags to a consumer where they are missing.

        Raises:
            NotFound: CONSUMER_NOT_FOUND.
        """
        with self._changing() as consumers:
            held = _entry(consumers, consumer).setdefault("tags", [])
            held += [tag for tag in tags if tag not in held]

    def rotate(self, consumer: str, *, algorithm: str | None = None, standby: bool = False) -> str:
        """A new key that signs from now on; the older ones verify until they are revoked.

        Args:
            standby: the key verifies only, until it is promoted: every Kong and gateway can know
                it before a token names it.

        Raises:
            NotFound: CONSUMER_NOT_FOUND.
            InvalidArgument: ALGORITHM_UNKNOWN.
        """
        with self._changing() as consumers:
            entry = _entry(consumers, consumer)
            held = entry.setdefault("jwt_secrets", [])
            chosen = algorithm or (held[-1]["algorithm"] if held else "ES256")
            secret = self._new_secret(consumer, chosen)
            held.insert(max(0, len(held) - 1) if standby else len(held), secret)
        return str(secret["key"])

    def promote(self, kid: str) -> None:
        """Let a key sign from now on.

        Raises:
            NotFound: KEY_NOT_FOUND, or the private half is not here.
        """
        with self._changing() as consumers:
            for entry in consumers:
                held = entry.get("jwt_secrets") or []
                found = [secret for secret in held if secret["key"] == kid]
                if found and self._can_sign(kid):
                    entry["jwt_secrets"] = [s for s in held if s["key"] != kid] + found
                    return
            raise NotFound("KEY_NOT_FOUND", f"no key that can sign is called '{kid}'")

    def sync(
        self, consumer: str, keys: KeySet, *, tenants: Sequence[str], scopes: Sequence[str]
    ) -> list[str]:
        """Make a key set's keys the credentials of a consumer; answers their names.

        Args:
            tenants, scopes: of the consumer, when it has no entry yet.

        Raises:
            InvalidArgument: NAME_INVALID, TENANT_INVALID, SCOPE_UNKNOWN.
            AlreadyExists: KEY_EXISTS, when another consumer has a key of that name.
        """
        _check_consumer(consumer, tenants, scopes)
        with self._changing() as consumers:
            taken = {
                secret["key"]
                for entry in consumers
                if entry["username"] != consumer
                for secret in entry.get("jwt_secrets") or []
            }
            if taken & keys.keys.keys():
                names = ", ".join(sorted(taken & keys.keys.keys()))
                raise AlreadyExists("KEY_EXISTS", f"another consumer has the key {names}")
            if not any(entry["username"] == consumer for entry in consumers):
                consumers.append({"username": consumer, "tags": _tags(tenants, scopes, ())})
            entry = _entry(consumers, consumer)
            entry["jwt_secrets"] = replaced(entry.get("jwt_secrets") or [], keys)
        return sorted(keys.keys)

    def configure(self, plugin: str, changes: dict[str, Any] | None) -> None:
        """Change a plugin that stands for all routes, and render; None goes back to the source.

        Raises:
            InvalidArgument: PLUGIN_UNKNOWN, PLUGIN_INVALID.
        """
        with self._changing():
            options = read_options(self._options)
            options.pop(plugin, None)
            if changes is not None:
                options[plugin] = changes
            try:
                document = merged(read_document(self._source), options)
                # Kong alone can detect bots; everything else must hold without Kong too.
                Rules({**document, "plugins": _without_bots(document)})
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise InvalidArgument("PLUGIN_INVALID", f"{plugin}: {error}") from error
            write_options(self._options, options)

    def revoke(self, kid: str) -> None:
        """End a key: its tokens are refused once the file is reloaded.

        Raises:
            NotFound: KEY_NOT_FOUND.
        """
        with self._changing() as consumers:
            for entry in consumers:
                held = entry.get("jwt_secrets") or []
                kept = [secret for secret in held if secret["key"] != kid]
                if len(kept) < len(held):
                    entry["jwt_secrets"] = kept
                    break
            else:
                raise NotFound("KEY_NOT_FOUND", f"no key is called '{kid}'")
        # Refused from here on, so the private half may go. A kid of the file names no path but
        # its own: _new_secret made it, or it has no file here.
        if _NAME.fullmatch(kid):
            self._private(kid).unlink(missing_ok=True)
            sync_folder(self._folder)

    def facts(self) -> list[KeyFacts]:
        """Every key, consumers in the order of the file, the signing key of each last."""
        facts = []
        for entry in self._consumers():
            consumer = parse_consumer(entry)
            tenants = sorted(consumer.tenants) + (["*"] if consumer.any_tenant else [])
            for secret in entry.get("jwt_secrets") or []:
                stamps = [t for t in secret.get("tags") or [] if t.startswith("created:")]
                facts.append(
                    KeyFacts(
                        kid=secret["key"],
                        consumer=consumer.name,
                        algorithm=secret["algorithm"],
                        created_at=stamps[0].removeprefix("created:") if stamps else "",
                        can_sign=self._can_sign(secret["key"]),
                        tenants=tuple(tenants),
                        scopes=tuple(sorted(consumer.scopes)),
                    )
                )
        return facts

    def render(self) -> None:
        """Write the rendered file again from the source, keeping the consumers."""
        with self._changing():
            pass

    def issue(
        self,
        *,
        consumer: str,
        subject: str,
        tenant: str | None = None,
        scopes: Sequence[str] = (),
        models: Sequence[str] = (),
        groups: Sequence[str] = (),
        lifetime: float = 3600.0,
        now: float | None = None,
    ) -> str:
        """A token, signed by the consumer's newest key.

        Args:
            tenant: None leaves it to ``sub``.
            models: what it may use; none is whatever the consumer may.
            groups: groups of access lists that the user is in; ``*`` reads all of the tenant.
            lifetime: seconds until ``exp``.
            now: seconds since the epoch; None is this moment.

        Raises:
            NotFound: CONSUMER_NOT_FOUND, SIGNING_KEY_NOT_FOUND.
            InvalidArgument: TENANT_NOT_ALLOWED, SCOPE_NOT_ALLOWED, MODEL_NOT_ALLOWED,
                GROUP_NOT_ALLOWED, for what the gateway would refuse or ignore anyway.
        """
        entry = _entry(self._consumers(), consumer)
        bounds = parse_consumer(entry)
        if not bounds.may_be(tenant or subject):
            raise InvalidArgument(
                "TENANT_NOT_ALLOWED",
                f"'{consumer}' may not speak for the tenant '{tenant or subject}'",
            )
        excess = sorted(set(scopes) - bounds.scopes)
        if excess:
            raise InvalidArgument(
                "SCOPE_NOT_ALLOWED", f"'{consumer}' may not grant: {', '.join(excess)}"
            )
        if bounds.models is not None and not set(models) <= bounds.models:
            raise InvalidArgument(
                "MODEL_NOT_ALLOWED", f"'{consumer}' may only grant: {', '.join(bounds.models)}"
            )
        if not bounds.any_group and not set(groups) <= bounds.groups:
            raise InvalidArgument(
                "GROUP_NOT_ALLOWED",
                f"'{consumer}' may only claim: {', '.join(sorted(bounds.groups)) or 'no group'}",
            )
        secret = self._signing_secret(entry)
        issued_at = int(time.time() if now is None else now)
        claims: dict[str, Any] = {
            "iss": consumer,
            "sub": subject,
            "scope": " ".join(scopes),
            "iat": issued_at,
            "nbf": issued_at,
            "exp": issued_at + int(lifetime),
            "jti": secrets.token_hex(16),
        }
        if tenant is not None:
            claims["tenant"] = tenant
        if models:
            claims["models"] = list(models)
        if groups:
            claims["groups"] = list(groups)
        key = load_pem_private_key(self._private(secret["key"]).read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise NotFound("SIGNING_KEY_NOT_FOUND", f"the key '{secret['key']}' cannot sign tokens")
        return jwt.encode(
            claims, key, algorithm=secret["algorithm"], headers={"kid": secret["key"]}
        )

    def _signing_secret(self, entry: dict[str, Any]) -> dict[str, Any]:
        for secret in reversed(entry.get("jwt_secrets") or []):
            if self._can_sign(secret["key"]):
                found: dict[str, Any] = secret
                return found
        raise NotFound(
            "SIGNING_KEY_NOT_FOUND",
            f"no private key of '{entry['username']}' is in {self._folder}; "
            "`ragmesh keys rotate` makes one",
        )

    def _can_sign(self, kid: str) -> bool:
        return _NAME.fullmatch(kid) is not None and self._private(kid).exists()

    def _private(self, kid: str) -> Path:
        return self._folder / f"{kid}.pem"

    def _consumers(self) -> list[dict[str, Any]]:
        if not self._rendered.exists():
            return []
        return list(read_document(self._rendered).get("consumers") or [])

    def _new_secret(self, consumer: str, algorithm: str) -> dict[str, Any]:
        if algorithm == "ES256":
            key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = ec.generate_private_key(
                ec.SECP256R1()
            )
        elif algorithm == "RS256":
            key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        else:
            raise InvalidArgument(
                "ALGORITHM_UNKNOWN", f"the algorithm '{algorithm}' is not known; {ALGORITHMS} are"
            )
        kid = f"{consumer[:50]}-{secrets.token_hex(6)}"
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        # The private half is durable before its public half is trusted.
        write_atomically(self._private(kid), pem, PRIVATE)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "key": kid,
            "algorithm": algorithm,
            "rsa_public_key": public.decode(),
            "tags": [f"created:{stamp}"],
        }

    @contextmanager
    def _changing(self) -> Iterator[list[dict[str, Any]]]:
        """The consumers, to be changed in place; rendered when the block ends well."""
        make_private_folder(self._folder)
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            consumers = self._consumers()
            yield consumers
            text = _BANNER + self._sourced()
            if consumers:
                text += "\n" + yaml.dump(
                    {"consumers": consumers}, Dumper=_Dumper, sort_keys=False, allow_unicode=True
                )
            # Left alone when nothing changes, so that readers do not reload for nothing.
            current = self._rendered.read_text("utf-8") if self._rendered.exists() else None
            if text != current:
                write_atomically(self._rendered, text, PUBLIC)

    def _sourced(self) -> str:
        """The source; with options its comments are lost."""
        options = read_options(self._options)
        if not options:
            return self._source.read_text(encoding="utf-8")
        document = merged(read_document(self._source), options)
        return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Keeps a PEM readable: text of several lines as a block. Writes no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    )


_Dumper.add_representer(str, _represent_text)


def group_tags(groups: Sequence[str]) -> list[str]:
    """Tags that let a consumer's tokens claim groups."""
    return ["group:*" if group == "*" else f"group:{quote(group, safe=':.-_')}" for group in groups]


def _tags(tenants: Sequence[str], scopes: Sequence[str], models: Sequence[str]) -> list[str]:
    return [
        *(f"tenant:{tenant}" for tenant in tenants),
        *(f"scope:{scope}" for scope in scopes),
        # Kong's tags hold no slash and no comma.
        *(f"model:{quote(model, safe=':.-_')}" for model in models),
    ]


def _without_bots(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [plugin for plugin in document["plugins"] if plugin["name"] != "bot-detection"]


def _entry(consumers: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for entry in consumers:
        if entry["username"] == name:
            return entry
    raise NotFound("CONSUMER_NOT_FOUND", f"no consumer is called '{name}'")


def _check_consumer(consumer: str, tenants: Sequence[str], scopes: Sequence[str]) -> None:
    if not _NAME.fullmatch(consumer):
        raise InvalidArgument(
            "NAME_INVALID", "a consumer's name has 1 to 64 letters, digits, dots, dashes or _"
        )
    for tenant in tenants:
        if not _TENANT.fullmatch(tenant):
            raise InvalidArgument(
                "TENANT_INVALID", f"the tenant {tenant!r} has a comma, slash, space or control"
            )
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown:
        raise InvalidArgument(
            "SCOPE_UNKNOWN", f"not a scope: {', '.join(unknown)}; known: {', '.join(SCOPES)}"
        )
