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
"""Longest ``sub``, ``tenant`` and ``jti``."""

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
        cache_size: how many verified tokens are remembered.
        check_interval: seconds between two looks at the file's time stamp.

        Raises:
            FailedPrecondition: CREDENTIALS_UNREADABLE, SECRET_KEY_TOO_SHORT.
        """
        self._path = path
        self._audience = audience
        self._leeway = leeway
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
            Unauthenticated: TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED.
            PermissionDenied: TENANT_NOT_ALLOWED, SCOPE_NOT_ALLOWED.
        """
        self._follow_file()
        token = _bearer(authorization)
        digest = hashlib.sha256(token).digest()
        known = self._cache.get(digest)
        if known is not None:
            if self._now() < known.expires_at:
                self._cache.move_to_end(digest)
                return known
            del self._cache[digest]
        principal = self._verify(token)
        self._cache[digest] = principal
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return principal

    def _follow_file(self) -> None:
        if self._monotonic() < self._next_check:
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
        self._check_audience(claims)
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
        credential = self._credentials.by_kid.get(kid) if isinstance(kid, str) else None
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
        longest = self._credentials.max_lifetime
        if longest and expires_at - now > longest:
            _refuse("exp: exceeds maximum allowed expiration")
        if "nbf" in claims and claims["nbf"] > now + self._leeway:
            _refuse("nbf: token not valid yet")
        return expires_at

    def _check_audience(self, claims: Mapping[str, Any]) -> None:
        if "aud" not in claims:
            return
        audience = claims["aud"]
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            _refuse("Invalid 'aud'")


def _principal(claims: Mapping[str, Any], consumer: Consumer, expires_at: float) -> Principal:
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
    if not scopes <= consumer.scopes:
        raise PermissionDenied(
            "SCOPE_NOT_ALLOWED", "The issuer of this token may not grant one of its scopes."
        )
    tenant_id = tenant_id_of(consumer.name, tenant)
    return Principal(consumer.name, tenant, tenant_id, subject, scopes, token_id, expires_at)


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
    consumer = Consumer(EMBEDDED_CONSUMER, frozenset(), frozenset(SCOPES), any_tenant=True)
    return Credential(EMBEDDED_CONSUMER, consumer, "HS256", secret.encode())


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)
