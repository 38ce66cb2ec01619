"""TLS that looks like a plain socket: what goes through it, and who is at its end."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lxpy.client.secure import NoAnswer, NotTrusted, Secure, shown
from lxpy.client.transport import Connection
from tests.support.tls import Front, free_port


class Echo:
    """Sends back what it gets, when all of it is there."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(ConnectionError):
                size = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big")
                data = bytearray()
                while len(data) < size and (more := connection.recv(1 << 16)):
                    data += more
                connection.sendall(data)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    echo = Echo(tmp_path / "echo.socket")
    front = Front(tmp_path / "echo.socket", tmp_path / "front.pem")
    yield front
    front.close()
    echo.close()


@pytest.fixture
def pin(front: Front, tmp_path: Path) -> str:
    (tmp_path / "pin.crt").write_text(front.certificate)
    return str(tmp_path / "pin.crt")


def test_much_goes_both_ways(front: Front, pin: str) -> None:
    data = bytes(range(256)) * 40_000
    connection = Connection(front.url, Secure(front.url, pin))
    connection.sock.sendall(len(data).to_bytes(8, "big") + data)
    got = bytearray()
    while more := connection.take(1 << 16):
        got += more
    connection.close()
    assert got == data


def test_another_certificate(front: Front, pin: str, tmp_path: Path) -> None:
    assert shown(front.url) == ssl.PEM_cert_to_DER_cert(front.certificate)
    with pytest.raises(NotTrusted, match="not trusted"):
        Secure(front.url, str(tmp_path / "none.crt")).connect()
    other = Front(tmp_path / "echo.socket", tmp_path / "other.pem")
    try:
        with pytest.raises(NotTrusted, match="another certificate"):
            Secure(other.url, pin).connect()
    finally:
        other.close()


def test_nobody_answers(tmp_path: Path) -> None:
    url = f"https://127.0.0.1:{free_port()}"
    with pytest.raises(NoAnswer, match="Connection refused"):
        Secure(url, str(tmp_path / "none.crt")).connect()
