"""Access lists: who may read a document.

A list names users and groups (``user:alice``, ``group:eng``); a caller has attributes of the same
form, which the gateway takes from a verified token. One in common is enough. A document without a
list is for everyone in the tenant; the attribute ``*`` reads everything in it.
"""

import re
from collections.abc import Collection

from services.runtime.errors import AlreadyExists, InvalidArgument, PermissionDenied, RagmeshError

EVERYTHING = "*"
"""The attribute of a tenant's administrator."""
MAX_ENTRIES = 64

_ENTRY = re.compile(r"(user|group):[^\x00-\x1f\x7f]{1,256}")


def may_read(access: Collection[str], attributes: Collection[str]) -> bool:
    """Whether a caller with these attributes may read a document with this list."""
    return not access or EVERYTHING in attributes or any(one in attributes for one in access)


def check_access(access: Collection[str], attributes: Collection[str], document_id: str) -> None:
    """Check a list that a caller wants to give a document.

    A writer names only what it holds itself, so that nobody can write what they cannot see, nor
    put words into the reach of a group that is not theirs.

    Raises:
        InvalidArgument: ACCESS_INVALID.
        PermissionDenied: ACCESS_NOT_HELD.
    """
    shown = document_id[:100]
    if len(access) > MAX_ENTRIES or not all(_ENTRY.fullmatch(one) for one in access):
        raise InvalidArgument(
            "ACCESS_INVALID",
            f"The access list of {shown!r} must have at most {MAX_ENTRIES} entries of the form "
            "user:NAME or group:NAME.",
            field="access",
        )
    if EVERYTHING not in attributes and not all(one in attributes for one in access):
        raise PermissionDenied(
            "ACCESS_NOT_HELD",
            f"The access list of {shown!r} names a user or a group that the token does not hold.",
            field="access",
        )


def id_taken(document_id: str) -> RagmeshError:
    """The refusal to replace a document that the caller may not read."""
    return AlreadyExists(
        "DOCUMENT_ID_TAKEN",
        f"The id {document_id[:100]!r} cannot be used in this collection; choose another.",
        field="id",
    )
