"""Keys of an OpenID provider: fetched from its JWKS URL, kept, and refreshed in the background.

The issuer and the audience are pinned by settings, never read from a token or from what the
provider answers; a header that points elsewhere is refused before a key is looked up. A consumer
of the rendered file bounds what the provider's tokens may say.
"""

import asyncio
import ipaddress
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt

from gateway.credentials import Consumer, Credential, PublicKey, make_credential
from services.runtime.errors import FailedPrecondition, RagmeshError, Unavailable

log = logging.getLogger(__name__)

MAX_BYTES = 256 * 1024
"""Of a key set; a provider has a handful of keys."""
TIMEOUT = 5.0
MIN_REFRESH_SECONDS = 5.0
"""Between two fetches, however many tokens name keys that nobody knows."""
MAX_STALE_SECONDS = 86_400.0
"""How long keys stay in force when the provider does not answer."""


class KeySet:
    """Public keys by ``kid``, each with its algorithm."""

    def __init__(self, keys: Mapping[str, tuple[str, PublicKey]]) -> None:
        self.keys = keys

    @property
    def identity(self) -> dict[str, tuple[str, object]]:
        """Equal for equal keys."""
        return {kid: (alg, key.public_numbers()) for kid, (alg, key) in self.keys.items()}

    @classmethod
    def parse(cls, text: bytes) -> "KeySet":
        """The keys of a set that can verify our tokens; others are left out.

        Raises:
            ValueError: it is no key set.
        """
        document = json.loads(text)
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise ValueError("it has no list of keys")
        keys: dict[str, tuple[str, PublicKey]] = {}
        for entry in entries:
            usable = _usable(entry)
            if usable is not None:
                kid, algorithm, key = usable
                if kid in keys:
                    raise ValueError(f"the key {kid!r} stands there twice")
                keys[kid] = (algorithm, key)
        return cls(keys)


class OidcIssuer:
    """An OpenID provider and its keys."""

    def __init__(
        self,
        *,
        url: str,
        issuer: str,
        audience: str,
        consumer: str,
        refresh: float = 300.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        url: the JWKS URL; https, but on loopback.
        issuer, audience: what ``iss`` must be, and ``aud`` must contain.
        consumer: the entry of the rendered file that bounds tenants, scopes and models.
        refresh: seconds between two fetches.

        Raises:
            FailedPrecondition: OIDC_URL_INVALID.
        """
        check_url(url)
        self.issuer = issuer
        self.audience = audience
        self.consumer = consumer
        self.version = 0
        """Changes with the keys."""
        self._url = url
        self._refresh = refresh
        self._monotonic = monotonic
        self._set = KeySet({})
        self._fetched_at = float("-inf")
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def credential(self, kid: str, consumers: Mapping[str, Consumer]) -> Credential | None:
        """The key of a name. One that is not known wakes the refresh up: its token is refused
        now, and accepted as soon as the provider has named the key."""
        known = self._set.keys.get(kid)
        if known is None:
            self._wanted.set()
            return None
        consumer = consumers.get(self.consumer)
        if consumer is None or self._monotonic() - self._fetched_at > MAX_STALE_SECONDS:
            return None
        algorithm, key = known
        return Credential(kid, consumer, algorithm, key)

    async def start(self) -> None:
        """Fetch once, and keep fetching. A provider that does not answer is no reason not to
        start: other issuers' tokens are good."""
        await self._try()
        self._task = asyncio.create_task(self._follow())

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(MIN_REFRESH_SECONDS)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._refresh)
            self._wanted.clear()
            await self._try()

    async def _try(self) -> None:
        try:
            fetched = await fetch(self._url)
        except RagmeshError as error:
            log.error("keys of the OpenID provider not fetched: %s", error.message)
            return
        self._fetched_at = self._monotonic()
        if fetched.identity != self._set.identity:
            self.version += 1
            log.info("keys of the OpenID provider: %d", len(fetched.keys))
        self._set = fetched


async def fetch(url: str) -> KeySet:
    """The key set behind a URL. Redirects are not followed.

    Raises:
        FailedPrecondition: OIDC_URL_INVALID.
        Unavailable: OIDC_KEYS_UNAVAILABLE.
    """
    check_url(url)
    try:
        async with (
            httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False) as client,
            client.stream("GET", url, headers={"accept": "application/json"}) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise Unavailable(
                    "OIDC_KEYS_UNAVAILABLE", f"{url} answered {response.status_code}."
                )
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_BYTES:
                    raise Unavailable("OIDC_KEYS_UNAVAILABLE", f"{url} answered too much.")
        return KeySet.parse(bytes(body))
    except httpx.HTTPError as error:
        raise Unavailable(
            "OIDC_KEYS_UNAVAILABLE", f"{url} cannot be read ({type(error).__name__})."
        ) from error
    except (ValueError, RecursionError) as error:
        raise Unavailable("OIDC_KEYS_UNAVAILABLE", f"{url} holds no key set: {error}.") from error


def check_url(url: str) -> None:
    """https; on loopback http too. Private addresses are an operator's own choice.

    Raises:
        FailedPrecondition: OIDC_URL_INVALID.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    if not host or parts.username or parts.password:
        raise FailedPrecondition("OIDC_URL_INVALID", f"{url!r} is no URL of a key set.")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise FailedPrecondition(
            "OIDC_URL_INVALID", f"{url!r} must be https: who changes the keys issues the tokens."
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _usable(entry: Any) -> tuple[str, str, PublicKey] | None:
    """kid, algorithm and key of an entry that signs with RS256 or ES256."""
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    kid = entry.get("kid")
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(entry.get("kty")))
    if not isinstance(kid, str) or not kid or algorithm is None:
        return None
    if entry.get("alg", algorithm) != algorithm:
        return None
    try:
        key = jwt.PyJWK(
            {name: value for name, value in entry.items() if name != "d"}, algorithm
        ).key
        made = make_credential(kid, Consumer("", frozenset(), frozenset()), algorithm, key)
    except (jwt.PyJWTError, ValueError):
        return None
    return (kid, algorithm, made.key) if not isinstance(made.key, bytes) else None
