"""Who is calling: set by the Context interceptor, read anywhere below it."""

import base64
import binascii
import re
import uuid
from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import quote

from services.runtime.errors import InvalidArgument, Unauthenticated

TENANT_KEY = "x-ragmesh-tenant"
SUBJECT_KEY = "x-ragmesh-subject"
ATTRIBUTES_KEY = "x-ragmesh-attributes"
REQUEST_ID_KEY = "x-request-id"

# A tenant id names folders, so nothing that a path could interpret gets through.
TENANT_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REQUEST_ID_PATTERN = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a call runs."""

    tenant: str
    """The tenant id (SHA-256 hex in production); empty when the call came without one."""
    subject: str
    """The user within the tenant; may be empty."""
    request_id: str
    attributes: tuple[str, ...] = ()
    """What the caller is, for access lists: ``user:alice``, ``group:eng``; ``*`` for everything."""


_caller: ContextVar[Caller | None] = ContextVar("ragmesh_caller", default=None)


def current_caller() -> Caller:
    """The caller of the running call, with a tenant.

    Raises:
        Unauthenticated: TENANT_REQUIRED, when the call came without a tenant, so that no code
            can read or write under an empty one.
    """
    caller = _caller.get()
    if caller is None or not caller.tenant:
        raise Unauthenticated("TENANT_REQUIRED", "This call needs a tenant.")
    return caller


def require_tenant() -> str:
    """The tenant of the running call. Raises as `current_caller` does."""
    return current_caller().tenant


def current_tenant() -> str:
    """The tenant of the running call, or an empty string where none is known."""
    caller = _caller.get()
    return caller.tenant if caller else ""


def current_request_id() -> str:
    """The id of the running call, or an empty string outside one."""
    caller = _caller.get()
    return caller.request_id if caller else ""


def set_caller(caller: Caller | None) -> None:
    """Say who is calling, for the rest of the running task and what it starts.

    Nothing resets it: each call runs in a task of its own.
    """
    _caller.set(caller)


def caller_metadata(caller: Caller) -> tuple[tuple[str, str], ...]:
    """The metadata by which the gateway tells a service who is calling."""
    metadata = (
        (TENANT_KEY, caller.tenant),
        # Metadata is ASCII; a subject is whatever an identity provider calls a user.
        (SUBJECT_KEY, quote(caller.subject, safe="@:/|+ ")),
        (REQUEST_ID_KEY, caller.request_id),
    )
    if not caller.attributes:
        return metadata
    return (*metadata, (ATTRIBUTES_KEY, pack_attributes(caller.attributes)))


def pack_attributes(attributes: tuple[str, ...]) -> str:
    """Attributes as metadata carries them: base64, because percents would triple their length."""
    return base64.urlsafe_b64encode("\n".join(attributes).encode()).decode("ascii")


def unpack_attributes(value: str | bytes | None) -> tuple[str, ...]:
    """Attributes from metadata; none when there are none.

    Raises:
        InvalidArgument: ATTRIBUTES_MALFORMED: a list that cannot be read must not become an
            empty one silently, although an empty one only takes rights away.
    """
    if not value:
        return ()
    try:
        text = base64.b64decode(value, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidArgument(
            "ATTRIBUTES_MALFORMED", "The attributes cannot be read.", field=ATTRIBUTES_KEY
        ) from None
    return tuple(text.split("\n"))


def new_request_id() -> str:
    return uuid.uuid4().hex


def request_id_or_none(value: str | bytes | None) -> str | None:
    """A client's request id if it is fit for logs and headers: printable ASCII, at most 128."""
    return value if isinstance(value, str) and _REQUEST_ID_PATTERN.fullmatch(value) else None
