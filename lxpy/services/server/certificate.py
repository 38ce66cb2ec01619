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

from lxpy import selfsigned
from lxpy.errors import Failed


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
        key, certificate = selfsigned.make("root", selfsigned.SERVER, _names())
        _write(self.key, key, 0o600)
        _write(self.file, certificate, 0o644)

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


def _names() -> list[x509.GeneralName]:
    loopback = (ipaddress.ip_address(each) for each in ("127.0.0.1", "::1"))
    return [x509.DNSName(socket.gethostname()), *map(x509.IPAddress, loopback)]


def _write(path: Path, data: bytes, mode: int) -> None:
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, path)
