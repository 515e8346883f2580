"""The same requests get the same refusals with Kong 3.9 and without: recorded there, seen here.

What Kong said was recorded on a real Kong 3.9.1, before the post-function shapes it: status, its
message, and whether `WWW-Authenticate` names `invalid_token`. Kong itself does not run here.
"""

import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.utils import base64url_encode

from gateway.credentials import read_document
from gateway.keys import Keyring
from tests.gateway.conftest import running
from tests.gateway.limits.stopwatch import early_in_the_minute

# ruff: noqa: SIM117 - a client inside a gateway reads better than both on one line
DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
INVALID = 'Bearer error="invalid_token"'


class Recorded(NamedTuple):
    """A request, and what a real Kong 3.9.1 answered."""

    name: str
    status: int
    message: str
    invalid_token: bool
    code: str
    """Of the OpenAI error object that the post-function makes."""


KONG = (
    Recorded("no token", 401, "Unauthorized", False, "token_missing"),
    Recorded("token in the query", 401, "Unauthorized", False, "token_missing"),
    Recorded("not a JWT", 401, "Bad token; invalid JSON", True, "token_invalid"),
    Recorded("bad signature", 401, "Invalid signature", True, "token_invalid"),
    Recorded("expired", 401, "exp: token expired", True, "token_expired"),
    Recorded("no exp", 401, "exp: must be a number", True, "token_invalid"),
    Recorded("unknown kid", 401, "No credentials found for given 'kid'", True, "token_invalid"),
    Recorded("no kid", 401, "No mandatory 'kid' in claims", True, "token_invalid"),
    Recorded("alg none", 401, "Bad token; invalid alg", True, "token_invalid"),
    Recorded("HS256 with the public key", 401, "Invalid algorithm", True, "token_invalid"),
    Recorded("ES256 under an RS256 kid", 401, "Invalid algorithm", True, "token_invalid"),
    Recorded("limit reached", 429, "API rate limit exceeded", False, "rate_limit_exceeded"),
    Recorded("too large", 413, "Request size limit exceeded", False, "request_too_large"),
    Recorded("too large, 100-continue", 417, "Request size limit exceeded", False,
             "request_too_large"),
    Recorded("unknown route", 404, "no Route matched with those values", False, "route_not_found"),
    Recorded("unknown under /v1, no token", 401, "Unauthorized", False, "token_missing"),
)  # fmt: skip


class Issuer:
    """A consumer with an RS256 and an ES256 key, and a hand that forges."""

    def __init__(self, data: Path) -> None:
        self.data = data
        keyring = Keyring(data)
        self.rs256 = keyring.create("acme", tenants=["acme"], algorithm="RS256")
        self.es256 = keyring.rotate("acme", algorithm="ES256")
        keyring.configure("rate-limiting", {"minute": 3, "hour": 100})
        keyring.configure("request-size-limiting", {"allowed_payload_size": 1024})
        self.rendered = keyring.rendered

    def claims(self, **changes: Any) -> dict[str, Any]:
        claims: dict[str, Any] = {"iss": "acme", "sub": "acme", "scope": "chat search models:read"}
        claims |= {"exp": int(time.time()) + 600} | changes
        return {name: value for name, value in claims.items() if value is not ...}

    def key(self, kid: str) -> Any:
        return load_pem_private_key((self.data / "keys" / f"{kid}.pem").read_bytes(), None)

    def token(self, **changes: Any) -> str:
        return self.signed(self.rs256, "RS256", {"kid": self.rs256}, **changes)

    def signed(self, kid: str, alg: str, headers: dict[str, str] | None, **changes: Any) -> str:
        return jwt.encode(self.claims(**changes), self.key(kid), algorithm=alg, headers=headers)

    def unsigned(self, alg: str, sign: Callable[[bytes], bytes]) -> str:
        parts = ({"alg": alg, "kid": self.rs256}, self.claims())
        text = b".".join(base64url_encode(json.dumps(part).encode()) for part in parts)
        return (text + b"." + base64url_encode(sign(text))).decode()

    def with_the_public_key(self) -> str:
        secrets = read_document(self.rendered)["consumers"][0]["jwt_secrets"]
        (public,) = (s["rsa_public_key"].encode() for s in secrets if s["key"] == self.rs256)
        return self.unsigned("HS256", lambda text: hmac.digest(public, text, "sha256"))


async def ask(client: httpx.AsyncClient, issuer: Issuer, name: str) -> httpx.Response:
    stranger = ec.generate_private_key(ec.SECP256R1())
    forged = jwt.encode(issuer.claims(), stranger, algorithm="ES256", headers={"kid": issuer.es256})
    tokens: dict[str, str | None] = {
        "no token": None,
        "token in the query": None,
        "not a JWT": "abc",
        "bad signature": forged,
        "expired": issuer.token(exp=int(time.time()) - 60),
        "no exp": issuer.token(exp=...),
        "unknown kid": issuer.signed(issuer.rs256, "RS256", {"kid": "nobody"}),
        "no kid": issuer.signed(issuer.rs256, "RS256", None),
        "alg none": issuer.unsigned("none", lambda text: b""),
        "HS256 with the public key": issuer.with_the_public_key(),
        "ES256 under an RS256 kid": issuer.signed(issuer.es256, "ES256", {"kid": issuer.rs256}),
        "unknown under /v1, no token": None,
    }
    token = tokens.get(name, issuer.token())
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    body = {"query": "q", "collection": "c"}
    match name:
        case "too large":
            body["query"] = "q" * 2000
        case "too large, 100-continue":
            body["query"] = "q" * 2000
            headers["expect"] = "100-continue"
        case "limit reached":
            await early_in_the_minute()
            for _ in range(3):
                assert (await client.get("/v1/models", headers=headers)).status_code == 200
            return await client.get("/v1/models", headers=headers)
        case "unknown route":
            return await client.get("/elsewhere", headers=headers)
        case "unknown under /v1, no token":
            return await client.get("/v1/elsewhere", headers=headers)
        case "token in the query":
            return await client.get("/v1/models", params={"jwt": issuer.token()})
        case _:
            pass
    return await client.post("/v1/query", json=body, headers=headers)


async def test_refusals_are_those_of_kong(tmp_path):
    issuer = Issuer(tmp_path)
    rows = []
    async with running(tmp_path, edge_file=issuer.rendered.read_text()) as gateway:
        async with httpx.AsyncClient(base_url=gateway.base_url, timeout=20) as client:
            for kong in KONG:
                response = await ask(client, issuer, kong.name)
                error = response.json()["error"]
                challenge = response.headers.get("www-authenticate", "")
                seen = Recorded(
                    kong.name,
                    response.status_code,
                    error["message"],
                    challenge == INVALID,
                    error["code"],
                )
                assert seen == kong
                assert response.headers["x-request-id"]
                assert response.headers["access-control-allow-origin"] == "*"
                if kong.status == 401:
                    # Refused before it counts: Kong tells of no limit either.
                    assert "ratelimit-limit" not in response.headers
                if kong.status == 429:
                    assert response.headers["ratelimit-limit"] == "3"
                    assert response.headers["ratelimit-remaining"] == "0"
                    assert response.headers["x-ratelimit-limit-minute"] == "3"
                    assert response.headers["x-ratelimit-remaining-minute"] == "0"
                    reset = int(response.headers["ratelimit-reset"])
                    assert 0 < int(response.headers["retry-after"]) <= reset <= 60
                rows.append(
                    f"| {kong.name} | {kong.status} | `{kong.message}` | "
                    f"{'`invalid_token`' if kong.invalid_token else '-'} | `{kong.code}` | same |"
                )
    table = "\n".join(
        [
            "| request | status | Kong's message | WWW-Authenticate | code | embedded |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )
    print(table)
    assert table in DOCUMENT.read_text(encoding="utf-8")


async def test_behind_kong_the_gateways_copies_are_off(tmp_path):
    issuer = Issuer(tmp_path)
    rendered = issuer.rendered.read_text()
    async with running(tmp_path, edge_file=rendered, edge="kong") as gateway:
        headers = {"authorization": f"Bearer {issuer.token()}", "origin": "https://app.example"}
        async with httpx.AsyncClient(base_url=gateway.base_url, timeout=20) as client:
            for _ in range(5):
                response = await client.get("/v1/models", headers=headers)
                assert response.status_code == 200
                assert "ratelimit-limit" not in response.headers
                assert "access-control-allow-origin" not in response.headers
            body = {"query": "q" * 2000, "collection": "c"}
            response = await client.post("/v1/query", json=body, headers=headers)
            assert response.status_code == 404
            # The token is still the gateway's own matter.
            assert (await client.get("/v1/models")).status_code == 401


async def test_preflights_are_answered_as_kong_answers_them(tmp_path):
    Keyring(tmp_path).create("acme", tenants=["acme"])
    keyring = Keyring(tmp_path)
    keyring.configure("cors", {"origins": ["https://app.example", r"https://[a-z]+\.dev\.example"]})
    asked = {"access-control-request-method": "POST"}
    async with running(tmp_path, edge_file=keyring.rendered.read_text()) as gateway:
        async with httpx.AsyncClient(base_url=gateway.base_url) as client:
            for origin in ("https://app.example", "https://one.dev.example"):
                response = await client.options("/v1/query", headers=asked | {"origin": origin})
                assert response.status_code == 200
                assert response.headers["access-control-allow-origin"] == origin
                assert "POST" in response.headers["access-control-allow-methods"].split(",")
                assert "authorization" in response.headers["access-control-allow-headers"]
                assert response.headers["access-control-max-age"] == "3600"
                assert response.headers["vary"] == "Origin"
            for origin in ("https://evil.example", "https://app.example.evil", "null"):
                response = await client.options("/v1/query", headers=asked | {"origin": origin})
                assert "access-control-allow-origin" not in response.headers
            refused = await client.post("/v1/query", headers={"origin": "https://app.example"})
            assert refused.status_code == 401
            assert refused.headers["access-control-allow-origin"] == "https://app.example"


@pytest.mark.parametrize("path", ["/v1/models", "/health/live"])
async def test_addresses_are_restricted_where_the_operator_says_so(tmp_path, path):
    keyring = Keyring(tmp_path)
    keyring.create("acme", tenants=["acme"])
    keyring.configure("ip-restriction", {"allow": ["10.0.0.0/8"]})
    async with running(tmp_path, edge_file=keyring.rendered.read_text()) as gateway:
        response = await gateway.client.get(path)
        assert response.status_code == 403
        assert response.json()["error"]["message"] == "IP address not allowed: 127.0.0.1"
