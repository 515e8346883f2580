"""Tokens of an OpenID provider: its keys fetched, its issuer and audience pinned."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from gateway.credentials import read_credentials
from gateway.jwks import MAX_STALE_SECONDS, KeySet, OidcIssuer, fetch
from services.runtime.errors import (
    AlreadyExists,
    FailedPrecondition,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from tests.unit.gateway_auth.conftest import NOW, Door

ISSUER = "https://id.example/realm"


class Provider:
    """A key set on loopback, and tokens signed with its keys."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.body: bytes | None = None
        self.status = 200
        self.fetches = 0
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.fetches += 1
                body = provider.body or json.dumps({"keys": provider.jwks()}).encode()
                self.send_response(provider.status)
                self.send_header("location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *given: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/jwks"

    def jwks(self) -> list[dict[str, Any]]:
        found = []
        for kid, key in self.keys.items():
            spelled = ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else RSAAlgorithm
            found.append(spelled.to_jwk(key.public_key(), as_dict=True) | {"kid": kid})
        return found

    def token(self, kid: str, **changes: Any) -> str:
        claims = {
            "iss": ISSUER,
            "aud": ["ragmesh", "account"],
            "sub": "user-7",
            "tenant": "acme",
            "scope": "openid profile chat",
            "exp": int(NOW) + 600,
        } | changes
        claims = {name: value for name, value in claims.items() if value is not ...}
        key = self.keys[kid]
        algorithm = "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"
        return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def provider() -> Iterator[Provider]:
    started = Provider()
    started.keys["ec-1"] = ec.generate_private_key(ec.SECP256R1())
    yield started
    started.close()


@pytest.fixture
def corporate(door: Door) -> Door:
    """A file with the consumer that bounds the provider's tokens."""
    door.keyring.sync("corp", KeySet({}), tenants=["acme"], scopes=["chat", "search"])
    return door


def issuer(provider: Provider, **more: Any) -> OidcIssuer:
    return OidcIssuer(url=provider.url, issuer=ISSUER, audience="ragmesh", consumer="corp", **more)


async def version(oidc: OidcIssuer, wanted: int) -> None:
    async with asyncio.timeout(10):
        while oidc.version < wanted:  # noqa: ASYNC110 - the refresh has nobody to tell
            await asyncio.sleep(0.02)


def refusal(gate: Any, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        gate.authenticate(f"Bearer {token}")
    return caught.value.message


async def test_its_tokens_speak_for_the_consumers_tenants(provider, corporate):
    provider.keys["rsa-1"] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    oidc = issuer(provider)
    await oidc.start()
    gate = corporate.authenticator(oidc=oidc)
    for kid in provider.keys:
        principal = gate.authenticate(f"Bearer {provider.token(kid)}")
        assert (principal.consumer, principal.tenant) == ("corp", "acme")
        assert principal.scopes == {"chat"}, "scopes that are not ours mean nothing"
    assert provider.fetches == 1
    assert refusal(gate, provider.token("ec-1", iss="https://evil.example")) == "Invalid 'iss'"
    assert refusal(gate, provider.token("ec-1", iss="corp")) == "Invalid 'iss'"
    assert refusal(gate, provider.token("ec-1", aud="account")) == "Invalid 'aud'"
    assert refusal(gate, provider.token("ec-1", aud=...)) == "Invalid 'aud'"
    for changes, reason in (
        ({"tenant": "rival"}, "TENANT_NOT_ALLOWED"),
        ({"scope": "openid models:admin"}, "SCOPE_NOT_ALLOWED"),
    ):
        with pytest.raises(PermissionDenied, match=reason):
            gate.authenticate(f"Bearer {provider.token('ec-1', **changes)}")
    # Our own issuers' tokens go on being what they were.
    assert gate.authenticate(f"Bearer {corporate.token()}").consumer == "local"
    await oidc.aclose()


async def test_a_new_key_is_fetched_when_a_token_names_it(provider, corporate, monkeypatch):
    monkeypatch.setattr("gateway.jwks.MIN_REFRESH_SECONDS", 0.05)
    oidc = issuer(provider)
    await oidc.start()
    gate = corporate.authenticator(oidc=oidc)
    gate.authenticate(f"Bearer {provider.token('ec-1')}")
    provider.keys["ec-2"] = ec.generate_private_key(ec.SECP256R1())
    token = provider.token("ec-2")
    assert refusal(gate, token) == "No credentials found for given 'kid'"
    await version(oidc, 2)
    gate.authenticate(f"Bearer {token}")
    # A key that the provider withdraws ends its tokens, remembered or not.
    old = provider.token("ec-1")
    gate.authenticate(f"Bearer {old}")
    del provider.keys["ec-1"]
    oidc._wanted.set()
    await version(oidc, 3)
    assert refusal(gate, old) == "No credentials found for given 'kid'"
    await oidc.aclose()


async def test_known_keys_outlive_a_silent_provider_for_a_day(provider, corporate, caplog):
    clock = [0.0]
    oidc = issuer(provider, monotonic=lambda: clock[0])
    await oidc.start()
    gate = corporate.authenticator(oidc=oidc)
    provider.status = 503
    await oidc._try()
    assert "not fetched" in caplog.text
    gate.authenticate(f"Bearer {provider.token('ec-1')}")
    clock[0] = MAX_STALE_SECONDS + 1
    assert "No credentials" in refusal(gate, provider.token("ec-1", jti="later"))
    await oidc.aclose()


async def test_without_an_entry_in_the_file_nobody_gets_in(provider, door):
    oidc = issuer(provider)
    await oidc.start()
    assert "No credentials" in refusal(door.authenticator(oidc=oidc), provider.token("ec-1"))
    await oidc.aclose()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (302, b""),
        (404, b""),
        (200, b"no json"),
        (200, b"[]"),
        (200, b'{"keys": 5}'),
        (200, b"[" * 100_000),
        (200, b" " * 300_000),
    ],
)
async def test_what_is_no_key_set_is_refused(provider, status, body):
    provider.status, provider.body = status, body
    with pytest.raises(Unavailable, match="OIDC_KEYS_UNAVAILABLE"):
        await fetch(provider.url)


@pytest.mark.parametrize(
    "url",
    ["http://id.example/jwks", "http://10.0.0.5/jwks", "ftp://127.0.0.1/x", "https://", "x",
     "https://user:password@id.example/jwks", "http://127.0.0.1.evil.example/jwks", "http://[::1"],
)  # fmt: skip
def test_only_https_but_on_loopback(url):
    with pytest.raises(FailedPrecondition, match="OIDC_URL_INVALID"):
        OidcIssuer(url=url, issuer=ISSUER, audience="ragmesh", consumer="corp")


def test_private_addresses_are_the_operators_choice():
    OidcIssuer(url="https://10.0.0.5/jwks", issuer=ISSUER, audience="ragmesh", consumer="corp")


def test_keys_that_cannot_verify_our_tokens_are_left_out(provider):
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - what must be refused
    other = ec.generate_private_key(ec.SECP384R1())
    good = provider.jwks()[0]
    entries = [
        good,
        RSAAlgorithm.to_jwk(weak.public_key(), as_dict=True) | {"kid": "weak"},
        ECAlgorithm.to_jwk(other.public_key(), as_dict=True) | {"kid": "p384"},
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
        good | {"kid": "enc", "use": "enc"},
        good | {"kid": "named", "alg": "HS256"},
        good | {"kid": 7},
        {"kty": "EC", "kid": "broken", "crv": "P-256", "x": "AA", "y": "AA"},
        "nothing",
    ]
    parsed = KeySet.parse(json.dumps({"keys": entries}).encode())
    assert list(parsed.keys) == ["ec-1"]
    with pytest.raises(ValueError, match="twice"):
        KeySet.parse(json.dumps({"keys": [good, good]}).encode())


async def test_sync_renders_its_keys_for_kong(provider, door):
    keys = await fetch(provider.url)
    door.keyring.sync("corp", keys, tenants=["acme"], scopes=["chat"])
    credential = read_credentials(door.keyring.rendered).by_kid["ec-1"]
    assert (credential.consumer.name, credential.algorithm) == ("corp", "ES256")
    assert not [fact for fact in door.keyring.facts() if fact.kid == "ec-1" and fact.can_sign]
    # The synced key alone does for the gateway, with issuer and audience still pinned.
    gate = door.authenticator(oidc=issuer(provider))
    assert gate.authenticate(f"Bearer {provider.token('ec-1')}").tenant == "acme"
    assert refusal(gate, provider.token("ec-1", aud="account")) == "Invalid 'aud'"
    # The next sync takes away what the provider has no more, and leaves the bounds.
    provider.keys = {"ec-2": ec.generate_private_key(ec.SECP256R1())}
    door.keyring.sync("corp", await fetch(provider.url), tenants=[], scopes=["search"])
    credentials = read_credentials(door.keyring.rendered)
    assert "ec-1" not in credentials.by_kid
    assert credentials.by_kid["ec-2"].consumer.scopes == {"chat"}
    # Nobody takes over a key of another consumer.
    stolen = KeySet({door.kid: keys.keys["ec-1"]})
    with pytest.raises(AlreadyExists, match="KEY_EXISTS"):
        door.keyring.sync("corp", stolen, tenants=[], scopes=[])
