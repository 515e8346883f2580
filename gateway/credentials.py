"""The rendered file, ``var/kong.yml``: whose tokens are accepted, and what they may assert.

Kong and the gateway read the same file. A consumer's tags bound its tokens:

    consumers:
    - username: local                      # the `iss` of its tokens
      tags: ["tenant:local", "scope:chat", "scope:search", "model:default"]
      jwt_secrets:
      - key: local-4f1c9a                  # the `kid` of the token's header
        algorithm: ES256
        rsa_public_key: "-----BEGIN PUBLIC KEY-----..."   # Kong keeps EC keys in this field too

``tenant:*`` trusts the issuer with any tenant, ``group:eng`` and ``group:*`` with groups of access
lists, ``operator`` with administration across consumers; without a ``model:`` tag every model is
allowed. A tag holds no slash, so that of ``provider/model`` is written ``%2F``. The private halves
are not in this file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from services.runtime.errors import FailedPrecondition

SCOPES = (
    "chat",
    "search",
    "documents:read",
    "documents:write",
    "models:read",
    "models:admin",
    "tasks",
)
"""Every scope that a route asks for."""

MIN_RSA_BITS = 2048
PublicKey = EllipticCurvePublicKey | RSAPublicKey
# libyaml where it is compiled in: ten times faster, and a reload happens beside requests.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Consumer:
    """An issuer of tokens, and what they may assert."""

    name: str
    tenants: frozenset[str]
    scopes: frozenset[str]
    any_tenant: bool = False
    groups: frozenset[str] = frozenset()
    """Groups of its tokens' ``groups`` claims that count; others say nothing."""
    any_group: bool = False
    operator: bool = False
    """Whether it speaks for who runs the mesh: its administrators see past their own consumer."""
    models: frozenset[str] | None = None
    """Models that its tokens may use; None: all."""

    def may_be(self, tenant: str) -> bool:
        return self.any_tenant or tenant in self.tenants


@dataclass(frozen=True, slots=True)
class Credential:
    """One key of a consumer. The algorithm is the credential's, never the token's choice."""

    kid: str
    consumer: Consumer
    algorithm: str
    key: PublicKey | bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the rendered file says about tokens."""

    by_kid: Mapping[str, Credential]
    consumers: Mapping[str, Consumer] = field(default_factory=dict)
    required_claims: frozenset[str] = frozenset({"exp"})
    """``claims_to_verify`` of the jwt plugin: Kong refuses a token without one of them."""
    max_lifetime: float = 0.0
    """``maximum_expiration`` of the jwt plugin: seconds from now to ``exp``; 0 is unlimited."""


def read_document(path: Path) -> dict[str, Any]:
    """A declarative file as it stands.

    Raises:
        FailedPrecondition: CREDENTIALS_UNREADABLE.
    """
    try:
        # The loader is a safe one, chosen above.
        document = yaml.load(path.read_bytes(), Loader=_Loader)  # noqa: S506
    except OSError as error:
        raise _unreadable(path, error.strerror or "I/O error") from error
    except yaml.YAMLError as error:
        raise _unreadable(path, "it is not YAML") from error
    if not isinstance(document, dict):
        raise _unreadable(path, "it is not a mapping")
    return document


def read_credentials(path: Path) -> Credentials:
    """The credentials of the rendered file.

    Raises:
        FailedPrecondition: CREDENTIALS_UNREADABLE, naming the file and what is wrong in it.
    """
    document = read_document(path)
    try:
        by_kid: dict[str, Credential] = {}
        consumers: dict[str, Consumer] = {}
        for entry in document.get("consumers") or []:
            consumer = parse_consumer(entry)
            consumers[consumer.name] = consumer
            for secret in entry.get("jwt_secrets") or []:
                credential = _parse_credential(secret, consumer)
                if credential.kid in by_kid:
                    raise ValueError(f"the key {credential.kid!r} stands there twice")
                by_kid[credential.kid] = credential
        plugin = _jwt_plugin(document)
        return Credentials(
            by_kid,
            consumers,
            frozenset(plugin.get("claims_to_verify") or ()) | {"exp"},
            float(plugin.get("maximum_expiration") or 0),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, str(error)) from error


def parse_consumer(entry: Mapping[str, Any]) -> Consumer:
    """A consumer's entry.

    Raises:
        ValueError, KeyError: the entry is malformed.
    """
    name = entry["username"]
    if not isinstance(name, str) or not name:
        raise ValueError("a consumer has no username")
    tags = [str(tag) for tag in entry.get("tags") or []]
    tenants = frozenset(tag.removeprefix("tenant:") for tag in tags if tag.startswith("tenant:"))
    scopes = frozenset(tag.removeprefix("scope:") for tag in tags if tag.startswith("scope:"))
    models = frozenset(unquote(tag[6:]) for tag in tags if tag.startswith("model:"))
    groups = frozenset(unquote(tag[6:]) for tag in tags if tag.startswith("group:"))
    return Consumer(
        name,
        tenants - {"*"},
        scopes,
        any_tenant="*" in tenants,
        groups=groups - {"*"},
        any_group="*" in groups,
        operator="operator" in tags,
        models=models or None,
    )


def _parse_credential(secret: Mapping[str, Any], consumer: Consumer) -> Credential:
    kid, algorithm = secret["key"], secret.get("algorithm")
    if not isinstance(kid, str) or not kid:
        raise ValueError(f"a credential of {consumer.name!r} has no key")
    try:
        key = load_pem_public_key(str(secret["rsa_public_key"]).encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"the public key of {kid!r} is not PEM") from error
    return make_credential(kid, consumer, algorithm, key)


def make_credential(kid: str, consumer: Consumer, algorithm: object, key: object) -> Credential:
    """A credential whose key fits its algorithm.

    Raises:
        ValueError: it does not, or the algorithm is none of ours.
    """
    if algorithm == "ES256":
        if not (isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)):
            raise ValueError(f"{kid!r} is ES256 and its key is not on P-256")
    elif algorithm == "RS256":
        if not (isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS):
            raise ValueError(f"{kid!r} is RS256 and its key is not RSA of {MIN_RSA_BITS}+ bits")
    else:
        raise ValueError(f"{kid!r} has the algorithm {algorithm!r}; known are ES256, RS256")
    return Credential(kid, consumer, str(algorithm), key)


def _jwt_plugin(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of the first jwt plugin, wherever it is attached."""
    services = document.get("services") or []
    routes = [route for service in services for route in service.get("routes") or []]
    for holder in (document, *services, *routes):
        for plugin in holder.get("plugins") or []:
            if plugin.get("name") == "jwt":
                return plugin.get("config") or {}
    return {}


def _unreadable(path: Path, what: str) -> FailedPrecondition:
    return FailedPrecondition(
        "CREDENTIALS_UNREADABLE",
        f"The credentials in {path} cannot be read: {what}. `ragmesh keys` renders the file.",
    )
