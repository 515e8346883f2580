"""What the commands say and write, without a mesh."""

import json
import socket
from pathlib import Path

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from cli.__main__ import app
from cli.addresses import addresses, check_addresses
from cli.api import Api, ApiError
from cli.bootstrap import check_format, prepare
from cli.commands.token import parse_lifetime
from cli.console import Failure
from cli.documents import find_documents
from cli.journal import Journal
from cli.messages import MESSAGES, message
from cli.settings import CommandSettings
from gateway.auth import Authenticator
from gateway.credentials import SCOPES
from gateway.keys import Keyring

runner = CliRunner()


def run(*arguments: str, status: int = 0) -> str:
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == status, (result.output, result.stderr, result.exception)
    return result.stdout


def test_every_command_has_help_with_an_example() -> None:
    commands = "up down status token ingest sync ask search models doctor".split()
    transfers = [f"collections {name}" for name in ("list", "export", "import", "reindex")]
    for command in (*commands, *transfers):
        text = run(*command.split(), "--help")
        assert "Example" in text, command
        assert f"ragmesh {command}" in text
        assert "--json" in text
    assert "rotate" in run("keys", "--help")


def test_a_data_directory_that_cannot_be_made_is_told_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    for data in (file, file / "below"):
        monkeypatch.setenv("RAGMESH_DATA", str(data))
        result = runner.invoke(app, ["up"])
        assert result.exit_code == 1
        [line] = result.stderr.replace("\n", " ").strip().split("  ")
        assert line.replace(" ", "").startswith(f"{data}:".replace(" ", "")), line


def test_messages_are_whole_in_both_languages() -> None:
    class Anything(dict):
        def __missing__(self, key: str) -> float:
            return 1.0

    for english, japanese in MESSAGES.values():
        assert english.format_map(Anything())
        assert japanese.format_map(Anything())
    assert message("down.none", "ja", data="x").startswith("x で")


def test_the_first_start_makes_a_key_and_a_token(settings: CommandSettings) -> None:
    assert prepare(settings) is True
    assert prepare(settings) is False
    assert settings.admin_token.stat().st_mode & 0o777 == 0o600
    [key] = Keyring(settings.data).facts()
    assert (key.consumer, key.algorithm, key.tenants) == ("local", "ES256", ("*",))
    gate = Authenticator(settings.data / "kong.yml")
    principal = gate.authenticate(f"Bearer {settings.admin_token.read_text().strip()}")
    assert principal.tenant == "local"
    assert principal.scopes == frozenset(SCOPES)
    assert settings.format_file.read_text() == "1\n"


def test_every_start_renews_the_token(settings: CommandSettings) -> None:
    prepare(settings)
    first = settings.admin_token.read_text()
    prepare(settings)
    assert settings.admin_token.read_text() != first


@pytest.mark.parametrize(
    ("text", "said"), [("2\n", "newer ragmesh"), ("x", "does not hold"), ("", "does not hold")]
)
def test_data_of_another_version_is_refused(
    settings: CommandSettings, text: str, said: str
) -> None:
    settings.data.mkdir()
    settings.format_file.write_text(text)
    with pytest.raises(Failure, match=said):
        prepare(settings)
    assert not (settings.data / "keys").exists()
    settings.format_file.write_text("1\n")
    assert check_format(settings.format_file) == 1


def test_a_taken_port_is_named_with_its_variable(settings: CommandSettings) -> None:
    check_addresses(settings)
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", settings.grpc_port_of("infer")))
        stranger.listen()
        with pytest.raises(Failure) as caught:
            check_addresses(settings)
    assert f"Port {settings.grpc_port_of('infer')} for infer (gRPC) is taken" in str(caught.value)
    assert "RAGMESH_GRPC_BASE" in str(caught.value)
    assert caught.value.status == 4


def test_ports_that_overlap_are_told(settings: CommandSettings) -> None:
    clash = settings.model_copy(update={"port": settings.grpc_port_of("retrieve")})
    with pytest.raises(Failure, match="wanted by both gateway \\(REST\\) and retrieve"):
        check_addresses(clash)
    assert len(list(addresses(settings))) == 11


def test_keys_and_tokens_from_the_command(settings: CommandSettings) -> None:
    made = json.loads(run("keys", "create", "acme", "--scope", "chat", "--json"))
    listed = json.loads(run("keys", "list", "--json"))["keys"]
    assert [key["kid"] for key in listed] == [made["kid"]]
    token = run("token", "--consumer", "acme", "--ttl", "15m").strip()
    gate = Authenticator(settings.data / "kong.yml")
    principal = gate.authenticate(f"Bearer {token}")
    assert (principal.consumer, principal.tenant) == ("acme", "acme")
    assert principal.scopes == {"chat"}
    rotated = json.loads(run("keys", "rotate", "acme", "--algorithm", "RS256", "--json"))["kid"]
    run("keys", "revoke", made["kid"])
    listed = json.loads(run("keys", "list", "--json"))["keys"]
    assert [(key["kid"], key["algorithm"]) for key in listed] == [(rotated, "RS256")]
    refused = json.loads(run("token", "--consumer", "acme", "--scope", "tasks", "--json", status=1))
    assert refused["error"]["code"] == "scope_not_allowed"
    refused = json.loads(run("keys", "create", "acme", "--json", status=1))
    assert refused["error"]["code"] == "consumer_exists"


def test_certificates_from_the_command(settings: CommandSettings) -> None:
    made = json.loads(run("keys", "tls", "--json"))
    assert "gateway" in made["renewed"]
    assert json.loads(run("keys", "tls", "--json"))["renewed"] == []


def test_a_clusters_objects_hold_no_signing_key(settings: CommandSettings) -> None:
    made = json.loads(run("keys", "init", "--json"))
    assert made["first"] is True
    assert json.loads(run("keys", "init", "--json")) == {"first": False, "certificates": []}
    text = run("keys", "manifests")
    objects = {entry["metadata"]["name"]: entry for entry in yaml.safe_load_all(text)}
    assert "BEGIN PUBLIC KEY" in objects["ragmesh-kong"]["data"]["kong.yml"]
    assert set(objects["ragmesh-tls-infer"]["stringData"]) == {"ca.crt", "tls.crt", "tls.key"}
    [signing] = (settings.data / "keys").glob("*.pem")
    for secret in (signing, settings.data / "tls" / "ca.key"):
        assert secret.read_text().splitlines()[1] not in text


@pytest.mark.parametrize(
    ("text", "seconds"), [("900", 900), ("15m", 900), ("12h", 43200), ("2D", 172800)]
)
def test_lifetimes(text: str, seconds: int) -> None:
    assert parse_lifetime(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "1w", "1.5h", "m"])
def test_lifetimes_that_are_none(text: str) -> None:
    with pytest.raises(Failure):
        parse_lifetime(text)


def test_nothing_runs(settings: CommandSettings) -> None:
    assert json.loads(run("status", "--json", status=1)) == {
        "running": False,
        "serving": False,
        "data": str(settings.data),
        "processes": {},
    }
    assert json.loads(run("down", "--json")) == {"ended": 0}
    assert "ragmesh up" in json.loads(run("models", "--json", status=1))["error"]["message"]
    prepare(settings)
    assert json.loads(run("models", "--json", status=1))["error"]["code"] == "no_answer"


def test_doctor_looks_at_everything(settings: CommandSettings) -> None:
    report = json.loads(run("doctor", "--json"))
    assert report["fine"] is True
    checks = {finding["check"] for finding in report["findings"]}
    assert {"python", "disk", "ports", "data format", "weights of the offline encoder"} <= checks
    settings.data.mkdir()
    settings.format_file.write_text("99\n")
    assert json.loads(run("doctor", "--json", status=1))["fine"] is False


def test_documents_are_found_by_format(tmp_path: Path) -> None:
    for name in ("a.md", "sub/a.md", "b.PDF", "c.exe", ".hidden/d.md", "questions.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    assert [doc.id for doc in find_documents([tmp_path])] == ["a.md", "b.PDF", "sub/a.md"]
    # What is named is sent, whatever it is called; the mesh says what it cannot read.
    assert [doc.id for doc in find_documents([tmp_path / "c.exe"])] == ["c.exe"]
    with pytest.raises(Failure, match="would both become"):
        find_documents([tmp_path / "a.md", tmp_path / "sub" / "a.md"])
    with pytest.raises(Failure, match="does not exist"):
        find_documents([tmp_path / "none.md"])


def test_a_journal_tells_errors_and_last_words(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x.log")
    with journal.open() as file:
        file.write(b'{"level": "INFO", "message": "fine"}\n{"level": "ERROR", "message": "bad"}\n')
        file.write(b"Traceback\n{half")
        file.flush()
        assert list(journal.errors()) == ["bad"]
        assert list(journal.errors()) == []
        file.write(b" line}\n")
        file.flush()
        assert journal.last_lines() == ["fine", "bad", "Traceback", "{half line}"]


def api_over(
    settings: CommandSettings, *answers: httpx.Response | httpx.HTTPError
) -> tuple[Api, list[httpx.Request]]:
    """An Api whose server gives these answers, or does not answer, in turn."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        given = answers[min(len(seen), len(answers)) - 1]
        if isinstance(given, httpx.HTTPError):
            raise given
        return given

    prepare(settings)
    return Api(settings, transport=httpx.MockTransport(answer)), seen


def test_what_passes_is_tried_again(settings: CommandSettings) -> None:
    busy = httpx.Response(503, headers={"retry-after": "0"}, json={"error": {"message": "down"}})
    api, seen = api_over(settings, busy, busy, httpx.Response(200, json={"ok": 1}))
    assert api.call_again("GET", "/v1/models") == {"ok": 1}
    assert len(seen) == 3
    assert seen[0].headers["authorization"].startswith("Bearer ey")


def test_a_silent_mesh_is_waited_for_only_when_it_has_answered_before(
    settings: CommandSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.api.time.sleep", lambda _seconds: None)
    silent, fine = httpx.ConnectError("refused"), httpx.Response(200, json={"ok": 1})
    api, seen = api_over(settings, silent, fine)
    with pytest.raises(ApiError, match="No mesh answers"):
        api.call_again("GET", "/v1/models")
    assert len(seen) == 1
    api, seen = api_over(settings, fine, silent, silent, fine)
    assert api.call_again("GET", "/v1/models") == api.call_again("GET", "/v1/models")
    assert len(seen) == 4


def test_what_does_not_pass_is_told_at_once(settings: CommandSettings) -> None:
    error = {"message": "no", "type": "x", "param": "query", "code": "query_empty"}
    api, seen = api_over(settings, httpx.Response(400, json={"error": error}))
    with pytest.raises(ApiError) as caught:
        api.call_again("POST", "/v1/query", json={})
    assert (str(caught.value), caught.value.code, len(seen)) == ("no (query)", "query_empty", 1)
