"""Deeds on keys and tokens are recorded; the log is read and verified without a mesh."""

import json

from sqlalchemy import create_engine, text

from cli.settings import CommandSettings
from gateway.auth import Authenticator
from tests.unit.cli.test_commands import run


def entries() -> list[tuple[str, str, str]]:
    found = json.loads(run("audit", "list", "--json"))["entries"]
    told = [entry["event"] for entry in reversed(found)]
    assert {each["consumer"] for each in told} <= {"operator"}
    assert all("@" in each["subject"] for each in told)
    return [(each["action"], each["target"], each["outcome"]) for each in told]


def test_deeds_on_keys_are_recorded(settings: CommandSettings) -> None:
    first = json.loads(run("keys", "create", "acme", "--group", "eng", "--json"))["kid"]
    second = json.loads(run("keys", "rotate", "acme", "--json"))["kid"]
    run("keys", "revoke", first)
    run("keys", "revoke", first, status=1)
    run("token", "revoke", "j-1", "--consumer", "acme")
    assert entries() == [
        ("key.create", first, "ok"),
        ("key.rotate", second, "ok"),
        ("key.revoke", first, "ok"),
        ("key.revoke", first, "key_not_found"),
        ("token.revoke", "acme/j-1", "ok"),
    ]
    [made] = json.loads(run("audit", "list", "--action", "key.create", "--json"))["entries"]
    assert made["event"]["target"] == first
    assert "operator" in run("audit", "list")
    run("audit", "list", "--action", "nonsense", status=1)


def test_nothing_is_done_that_cannot_be_recorded(settings: CommandSettings, monkeypatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    run("keys", "create", "acme", status=1)
    monkeypatch.delenv("DATABASE_URL")
    assert json.loads(run("keys", "list", "--json"))["keys"] == []


def test_the_chain_is_verified(settings: CommandSettings) -> None:
    run("keys", "create", "acme")
    head = run("audit", "verify").strip()
    assert head.startswith("1:")
    run("keys", "rotate", "acme")
    run("audit", "verify", "--head", head)
    longer = run("audit", "verify").strip()
    engine = create_engine(f"sqlite:///{settings.data / 'gateway.db'}")
    with engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_no_delete"))
        connection.execute(text("DELETE FROM audit WHERE number = 2"))
    run("audit", "verify")  # a shorter chain is unbroken,
    run("audit", "verify", "--head", longer, status=1)  # but lacks what was noted
    with engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_no_update"))
        connection.execute(text("UPDATE audit SET subject = 'somebody'"))
    engine.dispose()
    run("audit", "verify", status=1)


def test_tokens_carry_the_groups_that_their_consumer_may_claim(settings: CommandSettings) -> None:
    run("keys", "create", "acme", "--group", "eng", "--group", "a/b")
    issued = run("token", "--consumer", "acme", "--subject", "alice", "--group", "a/b").strip()
    principal = Authenticator(settings.data / "kong.yml").authenticate(f"Bearer {issued}")
    assert principal.attributes == ("user:alice", "group:a/b")
    assert not principal.operator
    run("token", "--consumer", "acme", "--group", "ops", status=1)
    run("keys", "init")
    admin = (settings.data / "admin.token").read_text().strip()
    principal = Authenticator(settings.data / "kong.yml").authenticate(f"Bearer {admin}")
    assert principal.attributes == ("*",)
    assert principal.operator
