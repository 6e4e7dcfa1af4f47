"""An authority of the tests' own, and certificates that it gives out."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Authority:
    """A certificate authority.

    Attributes:
        file: its certificate, for SSL_CERT_FILE.
    """

    directory: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, directory: Path) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _builder("tests' own authority", "tests' own authority", key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        made = cls(directory, key, certificate.sign(key, hashes.SHA256()))
        made.file.write_bytes(made.certificate.public_bytes(_PEM))
        return made

    @property
    def file(self) -> Path:
        return self.directory / "authority.pem"

    def server_context(self, host: str) -> ssl.SSLContext:
        """For a server at a host, which is a name or an IP address."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self.certificate.subject.rfc4514_string().removeprefix("CN=")
        signed = (
            _builder(host, issuer, key)
            .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        file = self.directory / f"{host}.pem"
        private = key.private_bytes(
            _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(private + signed.public_bytes(_PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(name: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
