"""Refusing one token: written where every gateway looks."""

import json
import time
from dataclasses import dataclass

from jwt.utils import base64url_decode

from cli.bootstrap import LOCAL_CONSUMER
from cli.console import Failure
from gateway.settings import GatewaySettings
from gateway.store.database import open_database
from gateway.store.revocations import RevocationStore

LONGEST_LIFETIME = 366 * 86400.0
"""Seconds; what Kong lets ``maximum_expiration`` be at most."""


@dataclass(frozen=True, slots=True)
class TokenName:
    """What names a token to those who verify it."""

    consumer: str
    token_id: str
    expires_at: float
    """Seconds since the epoch, when the token would be refused anyway."""


def name_of(given: str, consumer: str | None) -> TokenName:
    """A token by its ``jti``, or by itself: its claims are read and not verified.

    Raises:
        Failure: a token without ``jti``.
    """
    given = given.strip()
    if given.count(".") != 2:
        return TokenName(consumer or LOCAL_CONSUMER, given, time.time() + LONGEST_LIFETIME)
    try:
        claims = json.loads(base64url_decode(given.split(".")[1]))
        token_id, expires_at = claims["jti"], float(claims["exp"])
        issuer = consumer or str(claims["iss"])
    except (ValueError, KeyError, TypeError) as error:
        raise Failure("The token has no jti, so it has no name.", code="token_unnamed") from error
    return TokenName(issuer, str(token_id), expires_at)


async def revoke(settings: GatewaySettings, name: TokenName) -> bool:
    """Answers whether that was news.

    Raises:
        FailedPrecondition, Unavailable: the store does not answer.
    """
    engine = await open_database(settings.store_url)
    try:
        store = RevocationStore(engine)
        return await store.add(
            name.consumer, name.token_id, expires_at=name.expires_at, now=time.time()
        )
    finally:
        await engine.dispose()
