"""Settings: which name wins, and what a bad value says."""

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, SecretStr, ValidationError, model_validator

from services.runtime.settings import EXIT_MISCONFIGURED, CommaSeparated, RuntimeSettings, load


class InferSettings(RuntimeSettings):
    service: ClassVar[str] = "infer"
    queue: int = Field(8, ge=1)
    names: CommaSeparated = ()
    api_key: SecretStr | None = None

    @model_validator(mode="after")
    def _queue_is_not_thirteen(self) -> "InferSettings":
        if self.queue == 13:
            raise ValueError("RAGMESH_QUEUE must not be 13 with this log level")
        return self


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOG_LEVEL", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def test_defaults_are_loopback_and_the_documented_ports() -> None:
    settings = load(InferSettings)
    assert settings.address == "127.0.0.1:50053"
    assert settings.metrics_port == 9103
    assert settings.target_of("retrieve") == "127.0.0.1:50052"
    assert settings.data == Path("var")
    assert settings.is_loopback
    assert settings.tls is None


def test_bases_move_every_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGMESH_GRPC_BASE", "41000")
    monkeypatch.setenv("RAGMESH_METRICS_BASE", "42000")
    settings = load(InferSettings)
    assert (settings.grpc_port, settings.metrics_port) == (41003, 42003)
    assert settings.grpc_port_of("gateway") == 41000
    assert InferSettings(metrics_base=0).metrics_port is None


def test_ragmesh_names_win_over_legacy_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "warning")
    assert load(InferSettings).log_level == "WARNING"
    monkeypatch.setenv("RAGMESH_LOG_LEVEL", "debug")
    assert load(InferSettings).log_level == "DEBUG"


def test_a_bare_field_name_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")
    monkeypatch.setenv("QUEUE", "99")
    monkeypatch.setenv("OTEL_ENDPOINT", "http://elsewhere")
    settings = load(InferSettings)
    assert (settings.host, settings.queue, settings.otel_endpoint) == ("127.0.0.1", 8, None)


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGMESH_NAMES", "a, b,,c ")
    assert load(InferSettings).names == ("a", "b", "c")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        InferSettings().queue = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("RAGMESH_GRPC_BASE", "abc", "RAGMESH_GRPC_BASE='abc' is not accepted: input should be"),
        ("RAGMESH_GRPC_BASE", "99999", "less than or equal to 65530"),
        ("LOG_LEVEL", "loud", "'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'"),
        ("RAGMESH_LOG_LEVEL", "loud", "RAGMESH_LOG_LEVEL='LOUD' is not accepted"),
        ("RAGMESH_QUEUE", "0", "greater than or equal to 1"),
        ("RAGMESH_DRAIN_GRACE", "-1", "RAGMESH_DRAIN_GRACE='-1' is not accepted"),
        ("RAGMESH_QUEUE", "13", "RAGMESH_QUEUE must not be 13"),
    ],
)
def test_a_bad_value_is_one_line_that_says_what_is_accepted(
    name: str,
    value: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAGMESH_API_KEY", "hush")
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        load(InferSettings)
    assert ended.value.code == EXIT_MISCONFIGURED
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert name in lines[0]
    assert says in lines[0]
    assert "hush" not in lines[0]


def test_tls_files_come_from_a_directory_and_single_variables(tmp_path: Path) -> None:
    secret = InferSettings(tls_dir=tmp_path).tls
    assert secret is not None
    assert secret.cert == tmp_path / "tls.crt"
    (tmp_path / "infer.crt").touch()
    named = InferSettings(tls_dir=tmp_path, tls_ca=Path("other.crt")).tls
    assert named is not None
    assert (named.ca, named.key) == (Path("other.crt"), tmp_path / "infer.key")
    assert InferSettings(tls_ca=Path("ca.crt")).tls is None


@pytest.mark.parametrize(
    ("host", "loopback", "address"),
    [
        ("127.0.0.1", True, "127.0.0.1:50053"),
        ("::1", True, "[::1]:50053"),
        ("localhost", True, "localhost:50053"),
        ("0.0.0.0", False, "0.0.0.0:50053"),
        ("infer.example", False, "infer.example:50053"),
    ],
)
def test_addresses(host: str, loopback: bool, address: str) -> None:
    settings = InferSettings(host=host)
    assert (settings.is_loopback, settings.address) == (loopback, address)
