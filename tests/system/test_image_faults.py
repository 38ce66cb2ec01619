"""Uploads that are no image, too large to hold, too slow, cut off, or not what was announced."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.images.streams import serve
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.processes import rss_bytes, wait_until
from tests.support.tls import self_signed

MIB = 1 << 20
UPLOAD = {"Content-Type": "application/octet-stream"}


def connect(daemon: Daemon) -> socket.socket:
    raw = socket.socket(socket.AF_UNIX)
    raw.settimeout(60)
    raw.connect(str(daemon.socket))
    return raw


def head(length: int, **headers: str) -> bytes:
    """The head of an upload."""
    fields = {"Host": "x", "Content-Length": str(length), "Connection": "close", **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join(["POST /1.0/images HTTP/1.1", *lines, "", ""]).encode()


def answer(raw: socket.socket) -> Any:
    """The envelope of the answer."""
    data = b""
    while piece := raw.recv(65536):
        data += piece
    return json.loads(data.partition(b"\r\n\r\n")[2])


@pytest.fixture(autouse=True)
def nothing_left(daemon: Daemon) -> Iterator[None]:
    """No test leaves files, whole or in part."""
    images = daemon.directory / "images"
    before = sorted(os.listdir(images))
    yield
    wait_until(lambda: not incoming(daemon), 10, "what came in is gone")
    assert sorted(os.listdir(images)) == before


def incoming(daemon: Daemon) -> list[Path]:
    """Return the directories of what is on its way in."""
    return list((daemon.directory / "images").glob(".incoming-*"))


@pytest.mark.parametrize("kind", ["unified", "form"])
def test_rubbish_of_100_mb(daemon: Daemon, kind: str) -> None:
    """It goes to the disk piece by piece, is looked at, and refused."""
    length = 100 * MIB
    block = os.urandom(MIB)
    lead = tail = b""
    fields = {"Content_Type": "application/octet-stream"}
    if kind == "form":
        lead = (b'--edge\r\nContent-Disposition: form-data; name="metadata"; filename="m"\r\n\r\n'
                + b"x" * 100 + b'\r\n--edge\r\nContent-Disposition: form-data; name="rootfs"; '
                b'filename="r"\r\n\r\n')  # fmt: skip
        tail = b"\r\n--edge--\r\n"
        fields = {"Content_Type": "multipart/form-data; boundary=edge"}
    before = rss_bytes(daemon.pid)
    most = 0
    with closing(connect(daemon)) as raw:
        raw.sendall(head(len(lead) + length + len(tail), **fields) + lead)
        for number in range(length // MIB):
            raw.sendall(block)
            if number % 10 == 0:
                most = max(most, rss_bytes(daemon.pid))
        raw.sendall(tail)
        operation = answer(raw)["metadata"]
    with pytest.raises(ApiError, match="neither a tar archive"):
        daemon.api.wait(operation)
    assert max(most, rss_bytes(daemon.pid)) - before < 40 * MIB


def test_slow_upload_harms_nobody(daemon: Daemon) -> None:
    """While a client sends a kibibyte now and then, others are served; it leaves, nothing stays."""
    with closing(connect(daemon)) as raw:
        raw.sendall(head(100 * MIB, Content_Type="application/octet-stream"))
        for _ in range(5):
            raw.sendall(b"x" * 1024)
            begin = time.monotonic()
            daemon.api.get("/1.0/images")
            assert time.monotonic() - begin < 10
            time.sleep(0.1)
        assert incoming(daemon)
    wait_until(lambda: not incoming(daemon), 10, "the upload is forgotten")


def test_form_that_is_cut_off(daemon: Daemon) -> None:
    """The form ends within its first part, and so does the body."""
    body = b'--edge\r\nContent-Disposition: form-data; name="metadata"\r\n\r\nabc'
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    status, _, data = daemon.api.raw("POST", "/1.0/images", body, headers)
    assert status in (400, 500) and b"Invalid" in data


@pytest.mark.parametrize("fingerprint", ["0" * 64, "abc"])
def test_another_fingerprint(daemon: Daemon, busybox_image: Path, fingerprint: str) -> None:
    headers = {**UPLOAD, "X-LXD-fingerprint": fingerprint}
    with pytest.raises(ApiError, match=f"fingerprints don't match, got .* expected {fingerprint}"):
        daemon.api.call("POST", "/1.0/images", busybox_image.read_bytes(), headers)


def test_many_at_once(daemon: Daemon) -> None:
    """Twenty uploads of the same bytes are twenty files on the disk, not in memory."""
    before, block = rss_bytes(daemon.pid), os.urandom(MIB)
    errors: list[Any] = []

    def send() -> None:
        with closing(connect(daemon)) as raw:
            raw.sendall(head(8 * MIB, Content_Type="application/octet-stream"))
            for _ in range(8):
                raw.sendall(block)
            errors.append(daemon.api.get(answer(raw)["operation"] + "/wait")["err"])

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert rss_bytes(daemon.pid) - before < 100 * MIB
        time.sleep(0.02)
    assert len(errors) == 20
    assert all("neither a tar" in each or "refused a moment ago" in each for each in errors)


def test_server_that_sends_something_else(daemon: Daemon, tmp_path: Path) -> None:
    """A download whose bytes are not those that were announced is not kept."""
    (tmp_path / "image").write_bytes(b"rubbish" * 1000)
    with serve(tmp_path, {"LXD-Image-Hash": "0" * 64, "LXD-Image-URL": "SELF"}) as server:
        source = {"type": "url", "url": f"{server.url}/image"}
        with pytest.raises(ApiError, match="fingerprints don't match"):
            daemon.api.post("/1.0/images", {"source": source})


def test_server_that_falls_silent(daemon: Daemon, tmp_path: Path) -> None:
    """A download that is cancelled leaves nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        source = {"type": "url", "url": f"{url}/image"}
        operation = daemon.api.call("POST", "/1.0/images", {"source": source}, wait=False)
        peer, _ = server.accept()
        with closing(peer):
            peer.recv(4096)
            reply = f"HTTP/1.1 200 OK\r\nLXD-Image-Hash: {'0' * 64}\r\nLXD-Image-URL: {url}/i\r\n"
            peer.sendall(f"{reply}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        peer, _ = server.accept()
        with closing(peer):
            peer.recv(4096)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
            wait_until(lambda: bool(incoming(daemon)), 10, "the download begins")
            daemon.api.delete(f"/1.0/operations/{operation['id']}")
            wait_until(lambda: not incoming(daemon), 10, "the download ends")
    with pytest.raises(ApiError, match="401: Operation cancelled"):
        daemon.api.wait(operation)


def test_https_server_that_is_no_lxd(daemon: Daemon, tmp_path: Path) -> None:
    """What answers at the address speaks TLS, has the right certificate, and is something else."""
    certificate = self_signed(tmp_path / "server.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    (tmp_path / "1.0").mkdir()
    with serve(tmp_path, tls=context) as server:
        source = {"type": "image", "server": server.url, "alias": "x", "certificate": certificate}
        with pytest.raises(ApiError, match="404|not found"):
            daemon.api.post("/1.0/images", {"source": source})
        (tmp_path / "1.0/images").mkdir()
        (tmp_path / "1.0/images/x").write_text("hello")
        with pytest.raises(ApiError, match="does not answer as LXD does"):
            daemon.api.post("/1.0/images", {"source": source})
