"""The errors of a document, worded once. Each message carries the file's name and the reason."""

from services.runtime.errors import InvalidArgument, ResourceExhausted

MAX_SHOWN_NAME = 200


def shown(filename: str) -> str:
    """The file's name, fit for one line of a message."""
    name = "".join(char if char.isprintable() else "?" for char in filename)
    return repr(name if len(name) <= MAX_SHOWN_NAME else name[: MAX_SHOWN_NAME - 1] + "…")


def empty(filename: str, why: str) -> InvalidArgument:
    return InvalidArgument("EMPTY_DOCUMENT", f"{shown(filename)} {why}.")


def unreadable(filename: str, why: str) -> InvalidArgument:
    return InvalidArgument("UNREADABLE_DOCUMENT", f"{shown(filename)} cannot be read: {why}.")


def encrypted(filename: str) -> InvalidArgument:
    return InvalidArgument(
        "ENCRYPTED_DOCUMENT",
        f"{shown(filename)} is protected by a password; remove the password and send it again.",
    )


def unsupported(filename: str, what: str, supported: str) -> InvalidArgument:
    return InvalidArgument(
        "UNSUPPORTED_FORMAT",
        f"{shown(filename)} {what}, which is not supported; supported formats are {supported}.",
    )


def too_large(filename: str, limit_bytes: int) -> ResourceExhausted:
    return ResourceExhausted(
        "DOCUMENT_TOO_LARGE",
        f"{shown(filename)} is larger than {limit_bytes / 1e6:g} MB, the most a document may have.",
    )


def over_limit(filename: str, why: str) -> ResourceExhausted:
    return ResourceExhausted("PARSE_LIMIT", f"{shown(filename)} was not read: {why}.")
