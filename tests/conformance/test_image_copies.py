"""LXD's client and pylxd copy images between two daemons of ours that are strangers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Lxc
from tests.images import busybox
from tests.support.daemon import Daemon
from tests.support.tls import free_port, self_signed

PASSWORD = {"core.trust_password": "sesame"}


@pytest.fixture(scope="module")
def daemons(work_directory: Path, commands: Path) -> Iterator[dict[str, Daemon]]:
    """Two daemons on the network, by the names that the client has for them."""
    made = {name: Daemon(work_directory / name, commands) for name in ("one", "two")}
    try:
        for daemon in made.values():
            address = {"core.https_address": f"127.0.0.1:{free_port()}"}
            daemon.start().api.patch("/1.0", {"config": {**PASSWORD, **address}})
        yield made
        for daemon in made.values():
            daemon.remove()
    finally:
        for daemon in made.values():
            daemon.destroy()


def url(daemon: Daemon) -> str:
    return f"https://{daemon.api.get('/1.0')['config']['core.https_address']}"


@pytest.fixture(scope="module")
def lxc(daemons: dict[str, Daemon], tmp_path_factory: pytest.TempPathFactory) -> Lxc:
    lxc = Lxc(daemons["one"].directory, tmp_path_factory.mktemp("conf"))
    for name, daemon in daemons.items():
        words = (url(daemon), "--accept-certificate", "--password", "sesame")
        lxc("remote", "add", name, *words)
    return lxc


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    path = tmp_path_factory.mktemp("images")
    return [*busybox.build_split(path / "meta.tar.xz", path / "rootfs.tar.gz")]


@pytest.fixture
def image(daemons: dict[str, Daemon], lxc: Lxc, files: list[Path]) -> Iterator[str]:
    """A private image of the first; gone from both at the end."""
    lxc("image", "import", *files, "one:", "--alias", "web/base", "k=v")
    yield hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    for daemon in daemons.values():
        for found in daemon.api.get("/1.0/images"):
            daemon.api.delete(found)


@pytest.mark.parametrize("mode", ["pull", "push", "relay"])
def test_lxc(daemons: dict[str, Daemon], lxc: Lxc, image: str, mode: str) -> None:
    lxc("image", "copy", "one:web/base", "two:", "--mode", mode, "--copy-aliases", "--public")
    found = daemons["two"].api.get(f"/1.0/images/{image}")
    assert [each["name"] for each in found["aliases"]] == ["web/base"]
    assert found["public"]
    # lxc relays the files without what was said of them
    assert found["properties"].get("k") == (None if mode == "relay" else "v")
    assert "running" not in daemons["two"].api.get("/1.0/operations")


def test_lxc_launches(daemons: dict[str, Daemon], lxc: Lxc, image: str) -> None:
    lxc("launch", "one:web/base", "two:c1")
    assert lxc("exec", "two:c1", "--", "hostname").strip() == "c1"
    assert daemons["two"].api.get(f"/1.0/images/{image}")["cached"]
    lxc("delete", "--force", "two:c1")


def test_pylxd(
    daemons: dict[str, Daemon], image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests prefers them to `verify`
        monkeypatch.delenv(name, raising=False)
    pylxd = pytest.importorskip("pylxd")
    self_signed(tmp_path / "client.pem")
    clients = []
    for name, daemon in daemons.items():
        server = tmp_path / f"{name}.crt"
        server.write_text((daemon.directory / "server.crt").read_text())
        cert = (str(tmp_path / "client.pem"),) * 2
        client = pylxd.Client(endpoint=url(daemon), cert=cert, verify=str(server))
        client.authenticate("sesame")
        clients.append(client)
    copied = clients[0].images.get(image).copy(clients[1], public=True, wait=True)
    assert copied.fingerprint == image and copied.public and copied.properties["k"] == "v"
    with copied.export() as exported:
        assert len(exported.read()) > copied.size
    for client in clients:
        client.api.session.close()
