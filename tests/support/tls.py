"""Certificates for tests."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from asyncio import StreamReader, StreamWriter
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def self_signed(path: Path, name: str = "localhost") -> str:
    """Write a key and its certificate, which nobody else vouches for; the certificate (PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    loopback = x509.IPAddress(IPv4Address("127.0.0.1"))
    begin = datetime.now(UTC) - timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
        .sign(key, hashes.SHA256())
    )
    text = certificate.public_bytes(serialization.Encoding.PEM).decode()
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(secret + text.encode())
    return text


def revocation(authority: Path, key: Path, serial: int) -> bytes:
    """The list (PEM) by which an authority revokes the certificate of a serial number."""
    issuer = x509.load_pem_x509_certificate(authority.read_bytes()).subject
    secret = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(secret, ec.EllipticCurvePrivateKey)
    now = datetime.now(UTC)
    one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer).last_update(now)
    made = builder.next_update(now + timedelta(days=9)).add_revoked_certificate(one)
    return made.sign(secret, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Front:
    """TLS on a port of loopback, whose plain side is a unix socket: what is in it reaches that."""

    def __init__(self, socket: Path, pem: Path) -> None:
        self._socket = socket
        self.certificate = self_signed(pem)
        self._most_bytes = 1 << 60
        self._writers: list[StreamWriter] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        )
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"https://127.0.0.1:{port}"
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def pause_after(self, size: int) -> None:
        """From now on, let only so many bytes of an answer through: then it stands still."""
        self._most_bytes = size

    def close(self) -> None:
        """End it, and every connection through it."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in self._writers:
            if not writer.is_closing():
                writer.transport.abort()
        await asyncio.sleep(0.1)  # what is aborted is closed in the next turns of the loop

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(self._socket)
        self._writers += [writer, inner_writer]
        await asyncio.gather(
            _pump(reader, inner_writer, 1 << 60), _pump(inner_reader, writer, self._most_bytes)
        )


async def _pump(reader: StreamReader, writer: StreamWriter, most_bytes: int) -> None:
    done = 0
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
            done += len(data)
            if done > most_bytes:
                await asyncio.Event().wait()
    except OSError:
        return
    finally:
        writer.close()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
