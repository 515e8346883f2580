"""Groups that a token claims count as far as its consumer's tags allow."""

from pathlib import Path

import pytest

from gateway.auth import Authenticator
from gateway.keys import Keyring
from services.runtime.errors import InvalidArgument


def attributes(data: Path, token: str) -> tuple[str, ...]:
    return Authenticator(data / "kong.yml").authenticate(f"Bearer {token}").attributes


def issue(keyring: Keyring, *groups: str) -> str:
    return keyring.issue(consumer="acme", subject="alice", tenant="acme", groups=groups)


def test_groups_without_a_tag_say_nothing(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    keyring.create("acme", tenants=["acme"], groups=["*"])
    token, everything = issue(keyring, "eng", "ops", "a/b, c"), issue(keyring, "eng", "*")
    assert attributes(tmp_path, token) == (
        "user:alice", "group:a/b, c", "group:eng", "group:ops",
    )  # fmt: skip
    assert attributes(tmp_path, everything) == ("*",)
    rendered = tmp_path / "kong.yml"
    text = rendered.read_text()
    assert text.count("group:*") == 1
    rendered.write_text(text.replace("group:*", "group:ops"))
    assert attributes(tmp_path, token) == ("user:alice", "group:ops")
    assert attributes(tmp_path, everything) == ("user:alice",)
    with pytest.raises(InvalidArgument):
        issue(Keyring(tmp_path), "eng")
    rendered.write_text(text.replace("group:*", "note:none"))
    assert attributes(tmp_path, token) == ("user:alice",)


def test_tags_are_added_once(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    keyring.create("acme", tenants=["acme"])
    before = (tmp_path / "kong.yml").read_text()
    for _ in range(2):
        keyring.tag("acme", ["group:eng", "tenant:acme"])
    after = (tmp_path / "kong.yml").read_text()
    assert after.count("group:eng") == 1
    assert after.count("tenant:acme") == before.count("tenant:acme")
