"""An OpenID provider's keys as credentials of the rendered file: Kong's keys are static."""

from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.jwks import KeySet

SYNCED = "synced"
"""Tag of a credential that came from a key set, and goes when the set no longer has it."""


def credentials_of(keys: KeySet) -> list[dict[str, Any]]:
    """Entries of ``jwt_secrets``, by kid."""
    return [
        {
            "key": kid,
            "algorithm": algorithm,
            "rsa_public_key": key.public_bytes(
                Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            ).decode(),
            "tags": [SYNCED],
        }
        for kid, (algorithm, key) in sorted(keys.keys.items())
    ]


def replaced(held: list[dict[str, Any]], keys: KeySet) -> list[dict[str, Any]]:
    """The credentials of a consumer with those of the set in place of the earlier ones."""
    own = [secret for secret in held if SYNCED not in (secret.get("tags") or [])]
    return own + credentials_of(keys)
