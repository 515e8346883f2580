"""A data directory with one consumer, and a hand that forges tokens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.utils import base64url_encode

from gateway.auth import Authenticator
from gateway.keys import Keyring

NOW = 1_900_000_000.0
Forge = Callable[..., str]


class Clock:
    """Both clocks of an Authenticator, moved by hand."""

    def __init__(self) -> None:
        self.now = NOW
        self.monotonic = 0.0

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.monotonic += seconds


class Door:
    """A keyring, its authenticator, and tokens of every kind."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.clock = Clock()
        self.keyring = Keyring(data)
        self.kid = self.keyring.create("local", tenants=["acme", "user"], scopes=["chat", "search"])

    def authenticator(self, **options: Any) -> Authenticator:
        return Authenticator(
            self.keyring.rendered,
            now=lambda: self.clock.now,
            monotonic=lambda: self.clock.monotonic,
            **options,
        )

    def claims(self, **changes: Any) -> dict[str, Any]:
        claims = {
            "iss": "local",
            "sub": "user",
            "tenant": "acme",
            "scope": "chat",
            "exp": int(NOW) + 600,
        } | changes
        return {name: value for name, value in claims.items() if value is not ...}

    def token(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """Signed by the true key; a claim given as ``...`` is left out."""
        pem = (self.data / "keys" / f"{self.kid}.pem").read_bytes()
        key = load_pem_private_key(pem, password=None)
        headers = {"kid": self.kid} | (header or {})
        return jwt.encode(self.claims(**changes), key, algorithm="ES256", headers=headers)  # type: ignore[arg-type]

    def signed(self, payload: str, header: str | None = None) -> str:
        """Signed by the true key over raw JSON text, which a library would not write."""
        pem = (self.data / "keys" / f"{self.kid}.pem").read_bytes()
        key = load_pem_private_key(pem, password=None)
        head = header or json.dumps({"alg": "ES256", "typ": "JWT", "kid": self.kid})
        signing_input = b".".join(base64url_encode(part.encode()) for part in (head, payload))
        algorithm = jwt.get_algorithm_by_name("ES256")
        signature = algorithm.sign(signing_input, key)
        return (signing_input + b"." + base64url_encode(signature)).decode()


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)
