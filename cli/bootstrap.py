"""What a data directory must hold before anything starts: its format, keys and a token."""

import time
from pathlib import Path

from cli.console import Failure
from cli.settings import CommandSettings
from gateway.credentials import SCOPES
from gateway.files import PRIVATE, PUBLIC, write_atomically
from gateway.keys import OPERATOR, Keyring, group_tags

FORMAT_VERSION = 1
"""Of the data directory; a change that older versions cannot read raises it."""
LOCAL_CONSUMER = "local"
LOCAL_TENANT = "local"
ADMIN_TOKEN_LIFETIME = 30 * 86400.0
"""Seconds; each start renews the token, and a supervisor that runs on renews it daily."""


def prepare(settings: CommandSettings) -> bool:
    """Make what is missing; answers whether this was the first start.

    Raises:
        Failure: the data belongs to another version.
        RagmeshError: a key or the rendered file cannot be read.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    settings.logs.mkdir(exist_ok=True)
    check_format(settings.format_file, make=True)
    keyring = Keyring(settings.data)
    keyring.render()
    held = [key for key in keyring.facts() if key.consumer == LOCAL_CONSUMER]
    first = not held
    if first:
        # The operator's own issuer: whoever can read its key reads all of the data anyway, so it
        # is trusted with every tenant. Consumers made later get the tenants they are given.
        keyring.create(LOCAL_CONSUMER, tenants=["*"], scopes=SCOPES, groups=["*"], operator=True)
    elif not any(key.can_sign for key in held):
        keyring.rotate(LOCAL_CONSUMER)
    if not first:
        keyring.tag(LOCAL_CONSUMER, [*group_tags(["*"]), OPERATOR])  # data of an older version
    renew_admin_token(settings)
    return first


def renew_admin_token(settings: CommandSettings) -> None:
    """Write a fresh token with every scope, readable by its owner alone."""
    token = Keyring(settings.data).issue(
        consumer=LOCAL_CONSUMER,
        subject="admin",
        tenant=LOCAL_TENANT,
        scopes=SCOPES,
        groups=["*"],
        lifetime=ADMIN_TOKEN_LIFETIME,
        now=time.time(),
    )
    write_atomically(settings.admin_token, token + "\n", PRIVATE)


def check_format(path: Path, *, make: bool = False) -> int | None:
    """The data's format version; None when there is no data yet.

    Args:
        make: write the version of this program where there is none.

    Raises:
        Failure: a newer program wrote the data, or the file is not a number.
    """
    try:
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        if not make:
            return None
        write_atomically(path, f"{FORMAT_VERSION}\n", PUBLIC)
        return FORMAT_VERSION
    except ValueError:
        text = ""
    if not text.isdecimal() or int(text) < 1:
        raise Failure(
            f"{path} does not hold a format version; restore it from a backup.", code="data_format"
        )
    if int(text) > FORMAT_VERSION:
        raise Failure(
            f"The data in {path.parent} has format {text}, written by a newer ragmesh; this one "
            f"reads up to {FORMAT_VERSION}. Install that version, or set RAGMESH_DATA to another "
            "directory.",
            code="data_format",
        )
    return int(text)
