"""The server's own certificate, which clients pin, and the authority of a site that has one.

Source: LXD docs, "Remote API authentication".
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import socket
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lxpy.errors import Failed

_DAYS = 3650


class ServerCertificate:
    """`server.crt` and `server.key` of an installation, made once; `server.ca` where there is one.

    Blocking: not for the event loop.
    """

    def __init__(self, directory: Path) -> None:
        self.file = directory / "server.crt"
        self.key = directory / "server.key"
        self._ca, self._revoked = directory / "server.ca", directory / "ca.crl"
        self.pem = ""
        self.fingerprint = ""

    def load(self) -> None:
        """Read the certificate; make one where there is none. Raises Failed."""
        if not (self.file.exists() and self.key.exists()):
            self._make()
        try:
            self.pem = self.file.read_text()
            self.fingerprint = fingerprint(x509.load_pem_x509_certificate(self.pem.encode()))
        except (OSError, ValueError) as error:
            raise Failed(
                f"Cannot read the server's certificate {self.file}: {error}: repair it, or remove "
                "server.crt and server.key to have new ones (clients will have to trust them anew)"
            ) from error

    def _make(self) -> None:
        key = ec.generate_private_key(ec.SECP384R1())
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write(self.key, text, 0o600)
        _write(self.file, _certificate(key).public_bytes(Encoding.PEM), 0o644)

    def authority(self) -> x509.Certificate | None:
        """Return the authority that client certificates have to come from, if there is one."""
        try:
            return x509.load_pem_x509_certificate(self._ca.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise Failed(f"Cannot read {self._ca}: {error}") from error

    def is_issued(self, certificate: x509.Certificate, by: x509.Certificate) -> bool:
        """Tell whether an authority issued a certificate that is valid now and not revoked."""
        now = datetime.datetime.now(datetime.UTC)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            return False
        try:
            certificate.verify_directly_issued_by(by)
        except (ValueError, TypeError, InvalidSignature):
            return False
        with contextlib.suppress(FileNotFoundError):
            revoked = x509.load_pem_x509_crl(self._revoked.read_bytes())
            return (
                revoked.get_revoked_certificate_by_serial_number(certificate.serial_number) is None
            )
        return True


def fingerprint(certificate: x509.Certificate) -> str:
    """Return what LXD calls a certificate's fingerprint."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    host = socket.gethostname()
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "lxpy"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"root@{host}"[:64]),
        ]
    )
    names = [
        x509.DNSName(host),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA384())
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, path)
