"""LXD's client: images of simplestreams servers, which our daemon fetches for it."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Lxc
from tests.images import busybox
from tests.images.streams import Server, Tree, serve
from tests.support.daemon import Daemon
from tests.support.tls import self_signed


@pytest.fixture(scope="module")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    path = tmp_path_factory.mktemp("images")
    return [*busybox.build_split(path / "meta.tar.xz", path / "rootfs.tar.xz")]


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, image_files: list[Path]
) -> Iterator[tuple[Server, Path]]:
    """An image server by TLS, and the file that makes it trusted."""
    path = tmp_path_factory.mktemp("streams")
    tree = Tree(path / "www")
    tree.split("busy/1", "20260101", *image_files)
    pem, trusted = path / "server.pem", path / "trusted.crt"
    trusted.write_text(self_signed(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with serve(tree.root, tls=context) as server:
        yield server, trusted


@pytest.fixture(scope="module")
def daemon(work_directory: Path, commands: Path, server: tuple[Server, Path]) -> Iterator[Daemon]:
    """A daemon that trusts that server."""
    daemon = Daemon(work_directory / "streams", commands)
    daemon.environment["SSL_CERT_FILE"] = str(server[1])
    try:
        yield daemon.start()
        daemon.remove()
    finally:
        daemon.destroy()


@pytest.fixture(scope="module")
def lxc(
    daemon: Daemon, server: tuple[Server, Path], tmp_path_factory: pytest.TempPathFactory
) -> Lxc:
    """The client, which knows the server as `tiny:`."""
    lxc = Lxc(daemon.directory, tmp_path_factory.mktemp("conf"))
    lxc.environment["SSL_CERT_FILE"] = str(server[1])
    lxc("remote", "add", "tiny", server[0].url, "--protocol", "simplestreams")
    return lxc


def digest(files: list[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def test_launch(lxc: Lxc, daemon: Daemon, image_files: list[Path]) -> None:
    """The image is cached, kept up to date, and named after the alias it came by."""
    lxc("launch", "tiny:busy/1", "c1")
    assert lxc("exec", "c1", "--", "hostname").strip() == "c1"
    found = lxc.query(f"/1.0/images/{digest(image_files)}")
    assert found["cached"] and found["auto_update"]
    assert found["update_source"]["alias"] == "busy/1"
    assert found["update_source"]["protocol"] == "simplestreams"
    lxc("delete", "--force", "c1")
    lxc("image", "delete", digest(image_files))


@pytest.mark.parametrize("words", [(), ("--auto-update",), ("--copy-aliases", "--public")])
def test_copy(lxc: Lxc, image_files: list[Path], words: tuple[str, ...]) -> None:
    fingerprint = digest(image_files)
    lxc("image", "copy", "tiny:busy/1", "local:", *words)
    found = lxc.query(f"/1.0/images/{fingerprint}")
    assert not found["cached"] and found["public"] is ("--public" in words)
    assert found["auto_update"] is ("--auto-update" in words)
    names = [each["name"] for each in found["aliases"]]
    both = [f"{name}{more}" for name in ("busy/1", "busy/1/default") for more in ("", "/amd64")]
    assert names == (both if "--copy-aliases" in words else [])
    assert lxc("image", "refresh", fingerprint).strip().endswith("Image already up to date.")
    lxc("image", "delete", fingerprint)


def test_lxpy_sees_what_lxc_sees(lxc: Lxc, daemon: Daemon, server: tuple[Server, Path]) -> None:
    conf = Path(daemon.environment["LXPY_CONF"]) / "config.yml"
    address = server[0].url
    conf.write_text(f"remotes: {{tiny: {{addr: '{address}', protocol: simplestreams}}}}\n")
    words = ("image", "list", "tiny:", "-f", "csv", "-c", "LFpdast")
    assert daemon.lxpy(*words).stdout == lxc(*words)


@pytest.mark.parametrize("program", ["lxc", "lxpy"])
def test_export(
    lxc: Lxc, daemon: Daemon, server: tuple[Server, Path], image_files: list[Path],
    tmp_path: Path, program: str,
) -> None:  # fmt: skip
    """Both save the same two files, and the daemon keeps nothing."""
    if program == "lxc":
        lxc("image", "export", "tiny:busy/1", tmp_path)
    else:
        conf = Path(daemon.environment["LXPY_CONF"]) / "config.yml"
        address = server[0].url
        conf.write_text(f"remotes: {{tiny: {{addr: '{address}', protocol: simplestreams}}}}\n")
        daemon.lxpy("image", "export", "tiny:busy/1", tmp_path)
    saved = {hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.iterdir()}
    assert saved == {hashlib.sha256(file.read_bytes()).hexdigest() for file in image_files}
    assert lxc.query("/1.0/images") == []
