"""Images over HTTPS: what strangers see and may do, and copies between two daemons by `lxpy`."""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.images import busybox
from tests.support.daemon import Daemon
from tests.support.fixtures import import_image
from tests.support.tls import free_port


class Stranger:
    """Whoever can reach a daemon's port; its certificate is all that it knows."""

    def __init__(self, daemon: Daemon) -> None:
        port = free_port()
        daemon.api.patch("/1.0", {"config": {"core.https_address": f"127.0.0.1:{port}"}})
        self.url = f"https://127.0.0.1:{port}"
        self.certificate = (daemon.directory / "server.crt").read_text()
        self._port = port
        self._context = ssl.create_default_context(cadata=self.certificate)

    def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any], bytes]:
        """Return status, envelope and body."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, context=self._context, timeout=60
        )
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            data = reply.read()
            is_json = reply.getheader("content-type", "").startswith("application/json")
            return reply.status, json.loads(data) if is_json else {}, data
        finally:
            connection.close()

    def refused(self, method: str, path: str, *rest: Any) -> tuple[int, str]:
        status, envelope, _ = self.send(method, path, *rest)
        assert envelope["type"] == "error", envelope
        return status, envelope["error"]

    def get(self, path: str) -> Any:
        status, envelope, _ = self.send("GET", path)
        assert status == 200, envelope
        return envelope["metadata"]


@pytest.fixture(scope="module")
def source(work_directory: Path, commands: Path) -> Iterator[Daemon]:
    """A daemon whose images others look at."""
    daemon = Daemon(work_directory / "source", commands)
    try:
        yield daemon.start()
        daemon.remove()
    finally:
        daemon.destroy()


@pytest.fixture(scope="module")
def stranger(source: Daemon) -> Stranger:
    return Stranger(source)


@pytest.fixture(scope="module")
def images(source: Daemon, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A public image and a private one, by the aliases that they have."""
    path = tmp_path_factory.mktemp("images")
    found = {name: busybox.build(path / f"{name}.tar.gz", name) for name in ("public", "private")}
    for name, image in found.items():
        import_image(source, image, name)
    source.api.patch(f"/1.0/images/{digest(found['public'])}", {"public": True})
    return found


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_strangers_see_what_is_public(
    source: Daemon, stranger: Stranger, images: dict[str, Path]
) -> None:
    public, private = digest(images["public"]), digest(images["private"])
    assert stranger.get("/1.0/images") == [f"/1.0/images/{public}"]
    assert [each["fingerprint"] for each in stranger.get("/1.0/images?recursion=1")] == [public]
    assert stranger.get(f"/1.0/images/{public[:12]}")["fingerprint"] == public
    assert stranger.get("/1.0/images/aliases/public")["target"] == public
    _, _, data = stranger.send("GET", f"/1.0/images/{public}/export")
    assert data == images["public"].read_bytes()
    for path in (f"/1.0/images/{private}", f"/1.0/images/{private[:8]}",
                 f"/1.0/images/{private}/export", f"/1.0/images/{private}?secret=x",
                 "/1.0/images/aliases/private"):  # fmt: skip
        status, text = stranger.refused("GET", path)
        assert status == 404 and text in ("Image not found", "Image alias not found")


def test_strangers_change_nothing(stranger: Stranger, images: dict[str, Path]) -> None:
    public = f"/1.0/images/{digest(images['public'])}"
    image = images["public"].read_bytes()
    secret = {"X-LXD-fingerprint": digest(images["public"]), "X-LXD-secret": "guessed"}
    for method, path, *rest in (
        ("GET", "/1.0/images/aliases"),
        ("POST", "/1.0/images", image),
        ("POST", "/1.0/images", image, secret),
        ("POST", "/1.0/images", b'{"source": {"type": "url", "url": "http://127.0.0.1:9"}}'),
        ("POST", "/1.0/images/aliases", b"{}"),
        ("DELETE", "/1.0/images/aliases/public"),
        ("PUT", public, b"{}"),
        ("PATCH", public, b"{}"),
        ("DELETE", public),
        ("POST", f"{public}/secret", b"{}"),
        ("POST", f"{public}/export", b"{}"),
        ("POST", f"{public}/refresh", b"{}"),
        ("GET", "/1.0/lxpy/offers?server=http://127.0.0.1:9"),
    ):
        assert stranger.refused(method, path, *rest) == (403, "not authorized"), (method, path)
    assert stranger.get(public)["properties"]["serial"] == "public"


def test_secret_is_good_once(source: Daemon, stranger: Stranger, images: dict[str, Path]) -> None:
    """Once, and for some seconds after that: who downloads asks twice."""
    private, public = digest(images["private"]), digest(images["public"])
    token = source.api.call("POST", f"/1.0/images/{private}/secret", {}, wait=False)
    secret = token["metadata"]["secret"]
    path = f"/1.0/images/{private}"
    assert stranger.get(f"{path}?secret={secret}")["fingerprint"] == private
    _, _, data = stranger.send("GET", f"{path}/export?secret={secret}")
    assert data == images["private"].read_bytes()
    assert stranger.refused("POST", f"/1.0/images/{public}/refresh?secret={secret}")[0] == 403
    time.sleep(6)
    assert stranger.refused("GET", f"{path}/export?secret={secret}")[0] == 404


def test_stranger_sends_what_is_awaited(source: Daemon, stranger: Stranger, tmp_path: Path) -> None:
    """That image and no other, and waits for its end by the secret that the answer has."""
    image = busybox.build(tmp_path / "awaited.tar.gz", "awaited")
    other = busybox.build(tmp_path / "other.tar.gz", "other")
    # JSON is no way around
    sneaky = json.dumps({"source": {"type": "url", "url": "http://127.0.0.1:9/x"}}).encode()
    for body in (sneaky, other.read_bytes(), image.read_bytes()):
        wish = {"source": {"mode": "push", "fingerprint": digest(image)}}
        token = source.api.call("POST", "/1.0/images", wish, wait=False)
        headers = {"X-LXD-secret": token["metadata"]["secret"], "X-LXD-fingerprint": digest(image)}
        status, envelope, _ = stranger.send("POST", "/1.0/images", body, headers)
        if body != image.read_bytes():
            assert status == 500 and "fingerprints don't match" in envelope["error"]
    assert status == 202, envelope
    operation = envelope["metadata"]
    wait = f"/1.0/operations/{operation['id']}/wait"
    assert stranger.refused("GET", wait) == (403, "not authorized")
    waiter = operation["metadata"]["secret"]
    assert stranger.get(f"{wait}?secret={waiter}")["status"] == "Success"
    source.api.delete(f"/1.0/images/{digest(image)}")


@pytest.mark.parametrize("mode", ["", "pull", "push", "relay"])
def test_lxpy_copies_between_daemons(
    daemon: Daemon, source: Daemon, stranger: Stranger, images: dict[str, Path], mode: str
) -> None:
    """Two daemons that do not trust each other; the user has both by their sockets."""
    Stranger(daemon)
    conf = Path(daemon.environment["LXPY_CONF"]) / "config.yml"
    conf.write_text(f"remotes: {{source: {{addr: 'unix://{source.socket}'}}}}\n")
    words = ("--mode", mode) if mode else ()
    try:
        for name, image in images.items():
            daemon.lxpy("image", "copy", f"source:{name}", "local:", *words, "--copy-aliases")
            found = daemon.api.get(f"/1.0/images/{digest(image)}")
            assert found["aliases"] == [{"name": name, "description": ""}]
            assert found["properties"]["serial"] == name and not found["public"]
            daemon.api.delete(f"/1.0/images/{digest(image)}")
        name = daemon.name()
        daemon.lxpy("launch", "source:private", f"local:{name}")
        assert daemon.out(name, "hostname") == name
        daemon.api.delete(f"/1.0/images/{digest(images['private'])}")
    finally:
        conf.unlink()
        daemon.api.patch("/1.0", {"config": {"core.https_address": ""}})
    assert "running" not in source.api.get("/1.0/operations")
