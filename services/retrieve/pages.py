"""Page tokens: where a listing goes on."""

import base64
import binascii
import hashlib
import json

from services.runtime.errors import InvalidArgument

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
_CHECK_BYTES = 8


def page_size(asked: int) -> int:
    """The size to use; zero asks for the default.

    Raises:
        InvalidArgument: PAGE_SIZE_OUT_OF_RANGE.
    """
    if not 0 <= asked <= MAX_PAGE_SIZE:
        raise InvalidArgument(
            "PAGE_SIZE_OUT_OF_RANGE",
            f"A page holds from 1 to {MAX_PAGE_SIZE}.",
            field="page_size",
        )
    return asked or DEFAULT_PAGE_SIZE


def make_token(listing: str, last: str) -> str:
    """An opaque token that continues `listing` after the key `last`."""
    body = json.dumps(last).encode()
    return base64.urlsafe_b64encode(_check(listing, body) + body).decode()


def read_token(listing: str, token: str) -> str:
    """The key after which to go on; empty for an empty token.

    Args:
        listing: what is listed, so that a token of another listing is refused.

    Raises:
        InvalidArgument: PAGE_TOKEN_INVALID.
    """
    if not token:
        return ""
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
        check, body = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check == _check(listing, body):
            return str(json.loads(body))
    except (ValueError, binascii.Error):
        pass  # the same answer as for a token of another listing
    raise InvalidArgument(
        "PAGE_TOKEN_INVALID", "The page token is not one of this listing.", field="page_token"
    )


def _check(listing: str, body: bytes) -> bytes:
    """Ties a token to its listing. No secret: a forged token reaches only what its caller may."""
    key = hashlib.sha256(listing.encode()).digest()
    return hashlib.blake2b(body, key=key, digest_size=_CHECK_BYTES).digest()
