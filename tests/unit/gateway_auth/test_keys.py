"""Keys on disk, the rendered file, and certificates that verify."""

import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
import yaml
from cryptography import x509

from gateway.certificates import SERVICES, ensure_certificates
from gateway.credentials import SCOPES, read_credentials
from gateway.files import write_atomically
from gateway.keys import SOURCE, Keyring
from services.runtime.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
def test_a_token_is_verified_by_the_rendered_key(
    keyring: Keyring, tmp_path: Path, algorithm: str
) -> None:
    kid = keyring.create("acme", tenants=["acme"], scopes=["chat"], algorithm=algorithm)
    token = keyring.issue(consumer="acme", subject="u", tenant="acme", scopes=["chat"])
    credential = read_credentials(keyring.rendered).by_kid[kid]
    claims = jwt.decode(token, credential.key, algorithms=[algorithm])
    assert claims["iss"] == "acme"
    assert claims["exp"] - claims["iat"] == 3600
    assert "kid" not in claims
    assert jwt.get_unverified_header(token)["kid"] == kid
    assert mode(tmp_path / "keys" / f"{kid}.pem") == 0o600
    assert mode(tmp_path / "keys") == 0o700
    assert mode(keyring.rendered) == 0o644


def test_no_private_key_is_rendered(keyring: Keyring) -> None:
    keyring.create("acme", tenants=["acme"])
    text = keyring.rendered.read_text()
    assert "PRIVATE" not in text
    assert text.count("BEGIN PUBLIC KEY") == 1


def test_rendering_keeps_consumers_and_takes_up_a_new_source(tmp_path: Path) -> None:
    source = tmp_path / "source.yml"
    source.write_text(SOURCE.read_text())
    keyring = Keyring(tmp_path, source=source)
    kid = keyring.create("acme", tenants=["acme", "東京"])
    before = keyring.rendered.stat().st_mtime_ns
    keyring.render()
    assert keyring.rendered.stat().st_mtime_ns == before
    source.write_text(SOURCE.read_text().replace("minute: 6000", "minute: 7"))
    keyring.render()
    document = yaml.safe_load(keyring.rendered.read_text())
    assert document["plugins"][0]["config"]["minute"] == 7
    assert read_credentials(keyring.rendered).by_kid[kid].consumer.tenants == {"acme", "東京"}


def test_the_newest_key_signs(keyring: Keyring) -> None:
    first = keyring.create("acme", tenants=["u"])
    second = keyring.rotate("acme")
    token = keyring.issue(consumer="acme", subject="u")
    assert jwt.get_unverified_header(token)["kid"] == second
    keyring.revoke(second)
    token = keyring.issue(consumer="acme", subject="u")
    assert jwt.get_unverified_header(token)["kid"] == first
    keyring.revoke(first)
    with pytest.raises(NotFound, match="SIGNING_KEY_NOT_FOUND"):
        keyring.issue(consumer="acme", subject="u")


def test_what_the_gateway_would_refuse_is_not_issued(keyring: Keyring) -> None:
    keyring.create("acme", tenants=["acme"], scopes=["chat"])
    with pytest.raises(InvalidArgument, match="TENANT_NOT_ALLOWED"):
        keyring.issue(consumer="acme", subject="u", tenant="rival")
    with pytest.raises(InvalidArgument, match="TENANT_NOT_ALLOWED"):
        keyring.issue(consumer="acme", subject="rival")
    with pytest.raises(InvalidArgument, match="SCOPE_NOT_ALLOWED"):
        keyring.issue(consumer="acme", subject="acme", scopes=["tasks"])


def test_bad_names_are_refused(keyring: Keyring) -> None:
    for name in ("", "../x", "a b", "a/b", "x" * 65, ".hidden"):
        with pytest.raises(InvalidArgument):
            keyring.create(name, tenants=["t"])
    for tenant in ("", "a,b", "a/b", "a b", "a\n"):
        with pytest.raises(InvalidArgument):
            keyring.create("acme", tenants=[tenant])
    with pytest.raises(InvalidArgument):
        keyring.create("acme", tenants=["t"], scopes=["everything"])
    with pytest.raises(InvalidArgument):
        keyring.create("acme", tenants=["t"], algorithm="HS256")
    keyring.create("acme", tenants=["t"])
    with pytest.raises(AlreadyExists):
        keyring.create("acme", tenants=["t"])
    for kid in ("nothing", "../../etc/passwd"):
        with pytest.raises(NotFound):
            keyring.revoke(kid)


def test_changes_at_once_are_all_kept(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=lambda n=n: Keyring(tmp_path).create(f"c{n}", tenants=["t"]))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.consumer for key in Keyring(tmp_path).facts()} == {f"c{n}" for n in range(8)}


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, "old", 0o600)
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800", 0o600)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_certificates_verify_each_other(tmp_path: Path) -> None:
    assert ensure_certificates(tmp_path, names=["mesh.example"]) == list(SERVICES)
    assert mode(tmp_path) == 0o700
    for service in SERVICES:
        assert mode(tmp_path / f"{service}.key") == 0o600
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        context.load_cert_chain(tmp_path / f"{service}.crt", tmp_path / f"{service}.key")
        cert = x509.load_pem_x509_certificate((tmp_path / f"{service}.crt").read_bytes())
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert {service, "localhost", "mesh.example"} <= set(
            names.get_values_for_type(x509.DNSName)
        )


def test_certificates_are_renewed_before_they_expire(tmp_path: Path) -> None:
    ensure_certificates(tmp_path)
    assert ensure_certificates(tmp_path) == []
    (tmp_path / "infer.key").unlink()
    assert ensure_certificates(tmp_path) == ["infer"]
    later = datetime.now(UTC) + timedelta(days=380)
    assert ensure_certificates(tmp_path, now=later) == list(SERVICES)
    with pytest.raises(FailedPrecondition, match="CA_UNREADABLE"):
        ensure_certificates(tmp_path, now=later + timedelta(days=4000))


def test_the_source_holds_no_secret_and_routes_no_metrics() -> None:
    text = SOURCE.read_text()
    document = yaml.safe_load(text)
    assert document["_format_version"] == "3.0"
    assert "consumers" not in document
    assert "BEGIN" not in text
    routes = [route for service in document["services"] for route in service["routes"]]
    assert not any("metrics" in path for route in routes for path in route["paths"])
    assert len(SCOPES) == len(set(SCOPES))
