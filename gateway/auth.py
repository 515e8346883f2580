"""Who is calling, from a bearer token: the second of two checks, after Kong's, or the only one.

Signatures are PyJWT's work. The claims are checked here, because they must be stricter than a
library's defaults: no type is coerced, no claim may stand twice, ``iss`` must be the credential's
consumer, and tenant and scopes must be among what the consumer's entry lists.

Messages are those of Kong's jwt plugin wherever Kong has one, so that a client sees the same
refusal with and without Kong in front.
"""

import hashlib
import json
import logging
import math
import os
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jwt
from jwt.utils import base64url_decode

from gateway.credentials import SCOPES, Consumer, Credential, Credentials, read_credentials
from gateway.jwks import OidcIssuer
from gateway.revocations import Revocations
from services.runtime.errors import (
    FailedPrecondition,
    PermissionDenied,
    RagmeshError,
    Unauthenticated,
)

AUDIENCE = "ragmesh"
EMBEDDED_CONSUMER = "embedded"
"""The consumer (``iss``), and the optional ``kid``, of HS256 tokens signed with SECRET_KEY."""
MIN_SECRET_BYTES = 32
"""RFC 7518: an HS256 key is no shorter than its hash."""
MAX_TOKEN_BYTES = 8192
MAX_NAME_CHARS = 256
"""Longest ``sub``, ``tenant`` and ``jti``, and longest name of a group."""
MAX_GROUPS = 64
MAX_GROUPS_BYTES = 3072
"""All groups together, in UTF-8: they travel with every call to a service."""
EVERY_GROUP = "*"
"""In ``groups``: reads every document of the tenant, whatever its access list."""

# Header parameters that bring or point to a key, or change how the token is read.
_FOREIGN_KEY_PARAMETERS = ("jku", "x5u", "jwk", "x5c", "crit", "b64")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller that a verified token speaks for."""

    consumer: str
    tenant: str
    tenant_id: str
    """SHA-256 hex of the JSON array [consumer, tenant]: what travels and names stores."""
    subject: str
    scopes: frozenset[str]
    token_id: str | None
    """``jti``, by which a token is revoked."""
    expires_at: float
    """``exp``, in seconds since the epoch."""
    models: frozenset[str] | None = None
    """Models that may be asked for, by the names that requests use; None: all."""
    attributes: tuple[str, ...] = ()
    """What access lists are matched against: ``user:<sub>``, and ``group:<name>`` for each group
    that the consumer may assert; ``*`` alone for one who reads everything in the tenant."""
    any_tenant: bool = False
    """Whether the consumer speaks for any tenant of its own."""
    operator: bool = False
    """Whether the consumer speaks for who runs the mesh."""

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models

    def require_model(self, model: str) -> None:
        """Raises PermissionDenied MODEL_NOT_ALLOWED unless the model may be used."""
        if not self.may_use(model):
            raise PermissionDenied(
                "MODEL_NOT_ALLOWED", f"The token may not use the model '{model}'.", field="model"
            )

    def require(self, *scopes: str) -> None:
        """Raises PermissionDenied SCOPE_MISSING unless the token carries every one of them."""
        for scope in scopes:
            if scope not in self.scopes:
                raise PermissionDenied(
                    "SCOPE_MISSING", f"This needs the scope '{scope}', which the token lacks."
                )


def tenant_id_of(consumer: str, tenant: str) -> str:
    """The id of a tenant: the SHA-256 hex of the compact JSON array, in UTF-8."""
    pair = json.dumps([consumer, tenant], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(pair.encode()).hexdigest()


class Authenticator:
    """Verifies tokens against the rendered file, and follows the file when it changes."""

    def __init__(
        self,
        path: Path,
        *,
        secret: str | None = None,
        audience: str = AUDIENCE,
        leeway: float = 5.0,
        max_lifetime: float | None = None,
        revocations: Revocations | None = None,
        oidc: OidcIssuer | None = None,
        cache_size: int = 10_000,
        check_interval: float = 0.5,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        path: the rendered file.
        secret: SECRET_KEY, for embedded use: tokens signed by HS256 with it speak for the
            consumer `embedded`, for any tenant and scope. None refuses HS256.
        audience: what ``aud`` must contain in a token that has one.
        leeway: seconds of clock skew allowed on ``exp`` and ``nbf``.
        max_lifetime: seconds from now that ``exp`` may lie ahead, where that is less than the
            file's own ``maximum_expiration``.
        revocations: tokens that are refused before they expire.
        oidc: an OpenID provider whose tokens are accepted besides, within the bounds of a
            consumer of the file.
        cache_size: how many verified tokens are remembered.
        check_interval: seconds between two looks at the file's time stamp.

        Raises:
            FailedPrecondition: CREDENTIALS_UNREADABLE, SECRET_KEY_TOO_SHORT.
        """
        self._path = path
        self._audience = audience
        self._leeway = leeway
        self._max_lifetime = max_lifetime
        self._revocations = revocations if revocations is not None else Revocations()
        self._oidc = oidc
        self._oidc_version = oidc.version if oidc else 0
        self._cache_size = cache_size
        self._check_interval = check_interval
        self._now = now
        self._monotonic = monotonic
        self._embedded = _embedded_credential(secret) if secret else None
        self._cache: OrderedDict[bytes, Principal] = OrderedDict()
        self._seen = _fingerprint(path)
        self._credentials = self._read()
        self._next_check = monotonic() + check_interval

    def authenticate(self, authorization: str | None) -> Principal:
        """The principal of an ``Authorization`` header or metadata value.

        Raises:
            Unauthenticated: TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_REVOKED.
            PermissionDenied: TENANT_NOT_ALLOWED, SCOPE_NOT_ALLOWED, MODEL_NOT_ALLOWED.
        """
        self._follow_file()
        if self._oidc is not None and self._oidc.version != self._oidc_version:
            self._oidc_version = self._oidc.version
            self._cache.clear()
        token = _bearer(authorization)
        digest = hashlib.sha256(token).digest()
        known = self._cache.get(digest)
        if known is not None:
            if self._now() < known.expires_at and not self._is_revoked(known):
                self._cache.move_to_end(digest)
                return known
            del self._cache[digest]
        principal = self._verify(token)
        if self._is_revoked(principal):
            raise Unauthenticated("TOKEN_REVOKED", "Token revoked")
        self._cache[digest] = principal
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return principal

    def _is_revoked(self, principal: Principal) -> bool:
        token_id = principal.token_id
        return token_id is not None and (principal.consumer, token_id) in self._revocations

    def _follow_file(self, *, now: bool = False) -> None:
        if not now and self._monotonic() < self._next_check:
            return
        self._next_check = self._monotonic() + self._check_interval
        fingerprint = _fingerprint(self._path)
        if fingerprint == self._seen:
            return
        self._seen = fingerprint
        try:
            self._credentials = self._read()
        except RagmeshError as error:
            # Rendering is atomic, so this is a hand's work. Refusing everybody would turn a typo
            # into an outage; the keys known so far stay in force, and the log says so.
            _log.error("credentials not reloaded: %s", error.message)
            return
        self._cache.clear()
        _log.info("credentials reloaded: %d keys", len(self._credentials.by_kid))

    def _read(self) -> Credentials:
        credentials = read_credentials(self._path)
        taken = {credential.consumer.name for credential in credentials.by_kid.values()}
        if self._embedded and EMBEDDED_CONSUMER in taken | set(credentials.by_kid):
            raise FailedPrecondition(
                "CREDENTIALS_UNREADABLE",
                f"{self._path} names a consumer or key '{EMBEDDED_CONSUMER}', which SECRET_KEY "
                "reserves.",
            )
        return credentials

    def _verify(self, token: bytes) -> Principal:
        header, claims = _parse(token)
        credential = self._credential(header, claims)
        if header.get("alg") != credential.algorithm:
            _refuse("Invalid algorithm")
        try:
            jwt.PyJWS().decode(token, credential.key, algorithms=[credential.algorithm])
        except jwt.PyJWTError:
            _refuse("Invalid signature")
        expires_at = self._check_times(claims)
        oidc = self._oidc
        if oidc is not None and credential.consumer.name == oidc.consumer:
            # A provider signs for others too: its tokens must say that they are for us.
            _check_audience(claims, oidc.audience, required=True)
            if claims.get("iss") != oidc.issuer:
                _refuse("Invalid 'iss'")
            return _principal(claims, credential.consumer, expires_at, foreign=True)
        _check_audience(claims, self._audience, required=False)
        if claims.get("iss") != credential.consumer.name:
            _refuse("Invalid 'iss'")
        return _principal(claims, credential.consumer, expires_at)

    def _credential(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> Credential:
        for parameter in _FOREIGN_KEY_PARAMETERS:
            if parameter in header:
                _refuse(f"Bad token; header parameter '{parameter}' is not accepted")
        if "kid" in claims:
            # Kong would prefer it to the header's: the two would check different keys.
            _refuse("Bad token; 'kid' belongs in the header")
        algorithm = header.get("alg")
        if algorithm not in ("ES256", "RS256", "HS256"):
            _refuse("Bad token; invalid alg")
        kid = header.get("kid")
        embedded = self._embedded
        if embedded and algorithm == "HS256" and kid in (None, embedded.kid):
            return embedded
        if kid is None:
            _refuse("No mandatory 'kid' in claims")
        if isinstance(kid, str) and kid not in self._credentials.by_kid:
            # A key that was made this moment: its first token must not fail.
            self._follow_file(now=True)
        credential = self._credentials.by_kid.get(kid) if isinstance(kid, str) else None
        if credential is None and self._oidc is not None and isinstance(kid, str):
            credential = self._oidc.credential(kid, self._credentials.consumers)
        if credential is None:
            _refuse("No credentials found for given 'kid'")
        return credential

    def _check_times(self, claims: Mapping[str, Any]) -> float:
        now = self._now()
        for name in self._credentials.required_claims | ({"nbf", "iat"} & claims.keys()):
            if not _is_number(claims.get(name)):
                _refuse(f"{name}: must be a number")
        expires_at = float(claims["exp"])
        if expires_at <= now - self._leeway:
            raise Unauthenticated("TOKEN_EXPIRED", "exp: token expired")
        longest = self._credentials.max_lifetime or math.inf
        if self._max_lifetime is not None:
            longest = min(longest, self._max_lifetime)
        if expires_at - now > longest:
            _refuse("exp: exceeds maximum allowed expiration")
        if "nbf" in claims and claims["nbf"] > now + self._leeway:
            _refuse("nbf: token not valid yet")
        return expires_at


def _check_audience(claims: Mapping[str, Any], expected: str, *, required: bool) -> None:
    if "aud" not in claims and not required:
        return
    audience = claims.get("aud")
    if expected not in (audience if isinstance(audience, list) else [audience]):
        _refuse("Invalid 'aud'")


def _principal(
    claims: Mapping[str, Any], consumer: Consumer, expires_at: float, *, foreign: bool = False
) -> Principal:
    """Args:
    foreign: another's issuer wrote the token: scopes that are not ours (``openid``) mean nothing.
    """
    subject = _name(claims, "sub")
    tenant = _name(claims, "tenant") if "tenant" in claims else subject
    token_id = _name(claims, "jti") if "jti" in claims else None
    scope = claims.get("scope", "")
    if not isinstance(scope, str):
        _refuse("scope: must be a string")
    if not consumer.may_be(tenant):
        raise PermissionDenied(
            "TENANT_NOT_ALLOWED", "The issuer of this token may not speak for its tenant."
        )
    scopes = frozenset(scope.split())
    if foreign:
        scopes &= frozenset(SCOPES)
    if not scopes <= consumer.scopes:
        raise PermissionDenied(
            "SCOPE_NOT_ALLOWED", "The issuer of this token may not grant one of its scopes."
        )
    models = _models(claims, consumer)
    return Principal(
        consumer=consumer.name,
        tenant=tenant,
        tenant_id=tenant_id_of(consumer.name, tenant),
        subject=subject,
        scopes=scopes,
        token_id=token_id,
        expires_at=expires_at,
        models=models,
        attributes=_attributes(claims, consumer, subject),
        any_tenant=consumer.any_tenant,
        operator=consumer.operator,
    )


def _attributes(claims: Mapping[str, Any], consumer: Consumer, subject: str) -> tuple[str, ...]:
    """Groups that the consumer may not assert say nothing: identity providers list all groups of
    a user, whoever asks, and leaving one out only takes rights away."""
    groups = claims.get("groups", [])
    if not isinstance(groups, list) or len(groups) > MAX_GROUPS:
        _refuse(f"groups: must be a list of at most {MAX_GROUPS} names")
    names = sorted({_name({"groups": group}, "groups") for group in groups})
    if sum(len(name.encode()) for name in names) > MAX_GROUPS_BYTES:
        _refuse(f"groups: must have at most {MAX_GROUPS_BYTES} bytes together")
    held = [name for name in names if consumer.any_group or name in consumer.groups]
    if EVERY_GROUP in held:
        return (EVERY_GROUP,)
    return (f"user:{subject}", *(f"group:{name}" for name in held))


def _models(claims: Mapping[str, Any], consumer: Consumer) -> frozenset[str] | None:
    """The models of the claim, a list or separated by spaces, which only ever narrows."""
    if "models" not in claims:
        return consumer.models
    claim = claims["models"]
    named = claim.split() if isinstance(claim, str) else claim
    if not isinstance(named, list) or not all(isinstance(name, str) and name for name in named):
        _refuse("models: must be a list of names")
    models = frozenset(named)
    if consumer.models is not None and not models <= consumer.models:
        raise PermissionDenied(
            "MODEL_NOT_ALLOWED", "The issuer of this token may not grant one of its models."
        )
    return models


def _bearer(authorization: str | None) -> bytes:
    scheme, _, token = (authorization or "").strip().partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("TOKEN_MISSING", "Unauthorized")
    if len(token) > MAX_TOKEN_BYTES:
        _refuse("Bad token; too large")
    if not token.isascii():
        _refuse("Bad token; invalid JSON")
    return token.encode("ascii")


def _parse(token: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, unverified. A member that stands twice is refused: another reader of
    the same token might see the other value."""
    parts = token.split(b".")
    if len(parts) != 3:
        _refuse("Bad token; invalid JSON")
    try:
        header, claims = (
            json.loads(
                base64url_decode(part),
                object_pairs_hook=_unique,
                parse_constant=_no_constant,
            )
            for part in parts[:2]
        )
    except (ValueError, RecursionError):
        _refuse("Bad token; invalid JSON")
    if not isinstance(header, dict) or not isinstance(claims, dict):
        _refuse("Bad token; invalid JSON")
    return header, claims


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # An integer past the range of a float cannot be a time either.
    return abs(value) < 1e15 and math.isfinite(value)


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str) or not value.strip():
        _refuse(f"{claim}: must be a non-empty string")
    # Lone surrogates (Cs) have no UTF-8, control characters (Cc) no place in logs and headers.
    if len(value) > MAX_NAME_CHARS or any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        _refuse(f"{claim}: must be at most {MAX_NAME_CHARS} characters, none of them control")
    return value


def _refuse(message: str) -> NoReturn:
    raise Unauthenticated("TOKEN_INVALID", message)


def _embedded_credential(secret: str) -> Credential:
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise FailedPrecondition(
            "SECRET_KEY_TOO_SHORT",
            f"SECRET_KEY must have at least {MIN_SECRET_BYTES} bytes; it signs HS256 tokens.",
        )
    consumer = Consumer(
        EMBEDDED_CONSUMER,
        frozenset(),
        frozenset(SCOPES),
        any_tenant=True,
        any_group=True,
        operator=True,
    )
    return Credential(EMBEDDED_CONSUMER, consumer, "HS256", secret.encode())


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)
