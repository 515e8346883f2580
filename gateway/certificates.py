"""A private CA and one certificate per service, for mTLS between the processes of a mesh.

    <folder>/ca.crt, ca.key                    the CA; its key signs and goes into no pod
    <folder>/<service>.crt, <service>.key      CN and SAN are the service's name

A server trusts the tenant that a peer names only if the peer's certificate is the gateway's or
the worker's, so the name in a certificate is what it is worth.
"""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.files import PRIVATE, PUBLIC, make_private_folder, write_atomically
from services.runtime.errors import FailedPrecondition

SERVICES = ("preprocess", "retrieve", "infer", "postprocess", "gateway", "worker", "kong")
CA_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=397)
RENEW_BEFORE = timedelta(days=30)
_SKEW = timedelta(minutes=5)


class _Authority(NamedTuple):
    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure_certificates(
    folder: Path, *, names: Sequence[str] = (), now: datetime | None = None
) -> list[str]:
    """Make what is missing or expires within 30 days; answers the services renewed.

    Args:
        names: further DNS names and addresses for every certificate, such as a host's.

    Raises:
        FailedPrecondition: CA_UNREADABLE, when the CA's key and certificate do not belong
            together or have expired.
    """
    moment = now or datetime.now(UTC)
    make_private_folder(folder)
    ca = _Authority(*_ca(folder, moment))
    renewed = []
    for service in SERVICES:
        path = folder / f"{service}.crt"
        if not _is_fresh(path, ca.cert, moment) or not (folder / f"{service}.key").exists():
            _issue(folder, service, names, ca, moment)
            renewed.append(service)
    return renewed


def _ca(folder: Path, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    cert_path, key_path = folder / "ca.crt", folder / "ca.key"
    if cert_path.exists() and key_path.exists():
        cert = x509.load_pem_x509_certificate(cert_path.read_bytes())
        key = load_pem_private_key(key_path.read_bytes(), password=None)
        if (
            not isinstance(key, ec.EllipticCurvePrivateKey)
            or key.public_key() != cert.public_key()
            or cert.not_valid_after_utc <= now
        ):
            raise FailedPrecondition(
                "CA_UNREADABLE",
                f"{cert_path} has expired or is not {key_path}'s; move both away and make anew.",
            )
        return cert, key
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ragmesh CA")])
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_pair(folder, "ca", cert, key)
    return cert, key


def _issue(
    folder: Path,
    service: str,
    names: Sequence[str],
    ca: _Authority,
    now: datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    # Compose and Kubernetes reach a service by one of the first two, a mesh on one machine by
    # the others.
    hosts = [service, f"ragmesh-{service}", "localhost", "127.0.0.1", "::1", *names]
    cert = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, service)]))
        .issuer_name(ca.cert.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(min(now + LIFETIME, ca.cert.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(
            x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False
        )
        .sign(ca.key, hashes.SHA256())
    )
    _write_pair(folder, service, cert, key)


def _is_fresh(path: Path, ca: x509.Certificate, now: datetime) -> bool:
    if not path.exists():
        return False
    cert = x509.load_pem_x509_certificate(path.read_bytes())
    lasts = min(cert.not_valid_after_utc, ca.not_valid_after_utc) > now + RENEW_BEFORE
    return lasts and cert.issuer == ca.subject


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write_pair(
    folder: Path, name: str, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_atomically(folder / f"{name}.key", pem, PRIVATE)
    write_atomically(folder / f"{name}.crt", cert.public_bytes(Encoding.PEM), PUBLIC)
