"""A CA and certificates for mTLS tests, written as `ragmesh keys` writes them."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """Signs certificates that carry one DNS name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("test CA")
        certificate = self._build(self._name, self._key, x509.BasicConstraints(True, None))
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, service: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._build(
            _name(service), key, x509.SubjectAlternativeName([x509.DNSName(service)])
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        _write(self._directory / f"{service}.key", pem)
        _write(
            self._directory / f"{service}.crt",
            certificate.public_bytes(serialization.Encoding.PEM),
        )

    def _build(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        extension: x509.ExtensionType,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(self._key, hashes.SHA256())
        )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o600)
