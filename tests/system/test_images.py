"""Images over the API: uploads, names, exports, hostile files, servers, recipes."""

from __future__ import annotations

import email
import email.policy
import hashlib
import http.client
import os
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.images import busybox
from tests.images.busybox import Tarball
from tests.images.streams import Tree, serve
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import import_image
from tests.support.processes import wait_until

UPLOAD = {"Content-Type": "application/octet-stream"}


def digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def upload(daemon: Daemon, path: Path, **headers: str) -> dict[str, Any]:
    """Upload a unified image; the finished operation."""
    sent = UPLOAD | {f"X-LXD-{key}": value for key, value in headers.items()}
    return dict(daemon.api.call("POST", "/1.0/images", path.read_bytes(), sent))


def form(**parts: Path) -> tuple[bytes, dict[str, str]]:
    """A form with files, as body and headers."""
    body = b""
    for name, path in parts.items():
        body += f'--edge\r\nContent-Disposition: form-data; name="{name}"; '.encode()
        body += f'filename="{path.name}"\r\n\r\n'.encode() + path.read_bytes() + b"\r\n"
    return body + b"--edge--\r\n", {"Content-Type": "multipart/form-data; boundary=edge"}


@pytest.fixture
def fresh(tmp_path: Path, daemon: Daemon) -> Iterator[Callable[..., Path]]:
    """Images that no other test has uploaded; deleted at the end."""
    before = set(daemon.api.get("/1.0/images"))

    def make(serial: str = "") -> Path:
        name = serial or f"{time.time_ns()}"
        return busybox.build(tmp_path / f"image-{name}.tar.gz", name)

    yield make
    for url in set(daemon.api.get("/1.0/images")) - before:
        daemon.api.delete(url)


def test_upload_and_life(daemon: Daemon, fresh: Callable[..., Path]) -> None:
    path = fresh("life")
    fingerprint = digest(path)
    done = upload(
        daemon, path, filename="tiny.tar.gz", properties="colour=green&size=very%20small",
        public="true", profiles="profile=default", fingerprint=fingerprint,
    )  # fmt: skip
    assert done["metadata"] == {"fingerprint": fingerprint, "size": str(path.stat().st_size)}
    assert done["description"] == "Downloading image"
    assert f"/1.0/images/{fingerprint}" in daemon.api.get("/1.0/images")
    found = daemon.api.get(f"/1.0/images/{fingerprint[:12]}")
    assert found["fingerprint"] == fingerprint and found["size"] == path.stat().st_size
    assert found["filename"] == "tiny.tar.gz" and found["public"] and not found["cached"]
    assert found["properties"]["colour"] == "green" and found["properties"]["os"] == "Busybox"
    assert found["properties"]["size"] == "very small" and found["aliases"] == []
    assert found["last_used_at"] == "0001-01-01T00:00:00Z" and found["type"] == "container"
    daemon.api.patch(f"/1.0/images/{fingerprint}", {"properties": {"colour": "", "new": "1"}})
    found = daemon.api.get(f"/1.0/images/{fingerprint}")
    assert "colour" not in found["properties"] and found["properties"]["new"] == "1"
    daemon.api.put(f"/1.0/images/{fingerprint}", {"public": False, "properties": {"a": "b"}})
    found = daemon.api.get(f"/1.0/images/{fingerprint}")
    assert found["properties"] == {"a": "b"} and not found["public"]
    assert [
        each["fingerprint"]
        for each in daemon.api.get("/1.0/images?recursion=1&filter=properties.a+eq+b")
    ] == [fingerprint]
    daemon.api.delete(f"/1.0/images/{fingerprint}")
    with pytest.raises(ApiError, match="404: Image not found"):
        daemon.api.get(f"/1.0/images/{fingerprint}")
    assert not list((daemon.directory / "images").glob(f"{fingerprint}*"))


def test_etag(daemon: Daemon, tiny: str) -> None:
    target = daemon.api.get(f"/1.0/images/aliases/{tiny}")["target"]
    for url, body in (
        (f"/1.0/images/{target}", {"public": True}),
        (f"/1.0/images/aliases/{tiny}", {"description": "x"}),
    ):
        _, headers, _ = daemon.api.raw("GET", url)
        assert headers["etag"].startswith('"')
        status, _, _ = daemon.api.raw("PATCH", url, body, {"If-Match": "other"})
        assert status == 412


def test_export_is_what_was_uploaded(daemon: Daemon, fresh: Callable[..., Path]) -> None:
    path = fresh("export")
    upload(daemon, path)
    status, headers, data = daemon.api.raw("GET", f"/1.0/images/{digest(path)}/export")
    assert status == 200 and data == path.read_bytes()
    assert headers["content-disposition"] == f"inline;filename={digest(path)}.tar.gz"
    assert headers["content-type"] == "application/octet-stream"
    assert int(headers["content-length"]) == len(data)


def test_split_image(daemon: Daemon, fresh: Callable[..., Path], tmp_path: Path) -> None:
    meta, rootfs = busybox.build_split(tmp_path / "meta.tar.xz", tmp_path / "rootfs.tar.gz")
    body, headers = form(metadata=meta, rootfs=rootfs)
    done = daemon.api.call("POST", "/1.0/images", body, headers)
    fingerprint = digest(meta, rootfs)
    assert done["metadata"]["fingerprint"] == fingerprint
    status, fields, data = daemon.api.raw("GET", f"/1.0/images/{fingerprint}/export")
    assert status == 200 and int(fields["content-length"]) == len(data)
    head = f"Content-Type: {fields['content-type']}\r\n\r\n".encode()
    parts = list(email.message_from_bytes(head + data, policy=email.policy.HTTP).iter_parts())  # type: ignore[attr-defined]
    names = [part.get_param("name", header="content-disposition") for part in parts]
    assert names == ["metadata", "rootfs"]
    assert [part.get_filename() for part in parts] == [
        f"meta-{fingerprint}.tar.xz",
        f"{fingerprint}.tar.gz",
    ]
    content = b"".join(part.get_payload(decode=True) for part in parts)
    assert hashlib.sha256(content).hexdigest() == fingerprint
    name = daemon.name()
    source = {"type": "image", "fingerprint": fingerprint}
    daemon.api.post("/1.0/instances", {"name": name, "source": source})
    daemon.api.put(f"/1.0/instances/{name}/state", {"action": "start"})
    assert daemon.out(name, "cat", "/etc/hostname") == name


@pytest.mark.parametrize("first", ["rootfs", "other"])
def test_wrong_form(daemon: Daemon, first: str, tmp_path: Path, busybox_image: Path) -> None:
    body, headers = form(**{first: busybox_image})
    with pytest.raises(ApiError, match="400: Invalid multipart image"):
        daemon.api.call("POST", "/1.0/images", body, headers)


def test_squashfs(daemon: Daemon, fresh: Callable[..., Path], tmp_path: Path) -> None:
    path, tree = fresh("squashfs"), tmp_path / "tree"
    tree.mkdir()
    subprocess.run(["tar", "-xzf", path, "-C", tree], check=True)
    squashfs = tmp_path / "image.squashfs"
    subprocess.run(["mksquashfs", tree, squashfs, "-quiet", "-no-progress"], check=True)
    upload(daemon, squashfs)
    name = daemon.name()
    source = {"type": "image", "fingerprint": digest(squashfs)}
    daemon.api.post("/1.0/instances", {"name": name, "source": source})
    daemon.api.put(f"/1.0/instances/{name}/state", {"action": "start"})
    assert daemon.out(name, "hostname") == name


def test_same_image_again(daemon: Daemon, fresh: Callable[..., Path]) -> None:
    path = fresh("again")
    upload(daemon, path)
    operation = daemon.api.call("POST", "/1.0/images", path.read_bytes(), UPLOAD, wait=False)
    done = daemon.api.get(f"/1.0/operations/{operation['id']}/wait")
    assert done["err"] == "Image with same fingerprint already exists"
    assert done["metadata"]["fingerprint"] == digest(path)
    assert daemon.api.get(f"/1.0/images/{digest(path)}")["size"] == path.stat().st_size


def test_aliases(daemon: Daemon, fresh: Callable[..., Path]) -> None:
    one, two = fresh("alias-1"), fresh("alias-2")
    first, second = import_image(daemon, one, "os/1/amd64"), import_image(daemon, two, "os/2")
    assert "/1.0/images/aliases/os%2F1%2Famd64" in daemon.api.get("/1.0/images/aliases")
    for spelled in ("os/1/amd64", "os%2F1%2Famd64"):
        assert daemon.api.get(f"/1.0/images/aliases/{spelled}") == {
            "name": "os/1/amd64", "description": "", "target": first, "type": "container",
        }  # fmt: skip
    taken = {"name": "os/2", "target": first}
    with pytest.raises(ApiError, match='409: Alias "os/2" already exists'):
        daemon.api.post("/1.0/images/aliases", taken)
    with pytest.raises(ApiError, match="404: Image not found"):
        daemon.api.post("/1.0/images/aliases", {"name": "free", "target": "0" * 64})
    daemon.api.put("/1.0/images/aliases/os/2", {"target": first, "description": "moved"})
    assert daemon.api.get("/1.0/images/aliases/os/2")["target"] == first
    assert daemon.api.get(f"/1.0/images/{second}")["aliases"] == []
    daemon.api.post("/1.0/images/aliases/os/2", {"name": "os/3"})
    names = [each["name"] for each in daemon.api.get(f"/1.0/images/{first}")["aliases"]]
    assert names == ["os/1/amd64", "os/3"]
    daemon.api.delete("/1.0/images/aliases/os%2F3")
    with pytest.raises(ApiError, match="404: Image alias not found"):
        daemon.api.get("/1.0/images/aliases/os/3")
    daemon.api.delete(f"/1.0/images/{first}")
    with pytest.raises(ApiError, match="404"):
        daemon.api.get("/1.0/images/aliases/os/1/amd64")


def test_instance_survives_its_image(daemon: Daemon, fresh: Callable[..., Path]) -> None:
    fingerprint = import_image(daemon, fresh("survives"), "short-lived")
    name = daemon.name()
    source = {"type": "image", "alias": "short-lived"}
    daemon.api.post("/1.0/instances", {"name": name, "source": source})
    assert daemon.api.get(f"/1.0/images/{fingerprint}")["last_used_at"] > "2000"
    daemon.api.delete(f"/1.0/images/{fingerprint}")
    daemon.api.put(f"/1.0/instances/{name}/state", {"action": "start"})
    assert daemon.out(name, "hostname") == name


HOSTILE: dict[str, tuple[Callable[[Tarball], object], str]] = {
    "absolute": (lambda tar: tar.file("/etc/evil", "x"), 'member "/etc/evil" has an absolute path'),
    "dot dot": (lambda tar: tar.file("rootfs/../../evil", "x"), 'leaves the image by ".."'),
    "device": (
        lambda tar: tar.member("rootfs/etc/mem", tarfile.CHRTYPE, devmajor=1, devminor=1),
        'member "rootfs/etc/mem" is a device node',
    ),
    "hard link out": (
        lambda tar: tar.member("rootfs/shadow", tarfile.LNKTYPE, linkname="/etc/shadow"),
        "has an absolute path",
    ),
    "template is a link": (
        lambda tar: tar.symlink("templates/x.tpl", "/etc/shadow"),
        "is not a regular file",
    ),
}  # fmt: skip


def refused(daemon: Daemon, data: bytes, text: str) -> None:
    """An upload fails with that text, and leaves nothing."""
    before = sorted(os.listdir(daemon.directory / "images"))
    with pytest.raises(ApiError) as failure:
        daemon.api.call("POST", "/1.0/images", data, UPLOAD)
    assert text in failure.value.text
    assert sorted(os.listdir(daemon.directory / "images")) == before
    assert not list((daemon.directory / "images").glob(".incoming*"))


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(daemon: Daemon, tmp_path: Path, case: str) -> None:
    add, text = HOSTILE[case]
    path = tmp_path / "hostile.tar.gz"
    with Tarball(path) as tarball:
        busybox.fill_metadata(tarball, case)
        tarball.directory("rootfs")
        add(tarball)
    refused(daemon, path.read_bytes(), text)
    assert not Path("/etc/evil").exists()


def test_link_out_is_seen_when_unpacking(daemon: Daemon, fresh: Any, tmp_path: Path) -> None:
    """Links are followed by nobody: a file below one that leads out fails the instance."""
    path = tmp_path / "links.tar.gz"
    with Tarball(path) as tarball:
        busybox.fill_metadata(tarball, "links")
        tarball.directory("rootfs")
        tarball.symlink("rootfs/out", str(tmp_path))
        tarball.file("rootfs/out/evil", "x")
    upload(daemon, path)
    name = daemon.name()
    source = {"type": "image", "fingerprint": digest(path)}
    with pytest.raises(ApiError, match="which is a link out of the image"):
        daemon.api.post("/1.0/instances", {"name": name, "source": source})
    assert name not in daemon.instances() and not (tmp_path / "evil").exists()


def test_truncated_and_rubbish(daemon: Daemon, busybox_image: Path) -> None:
    data = busybox_image.read_bytes()
    refused(daemon, data[: len(data) // 2], "Invalid image: its compression is damaged or ends")
    refused(daemon, b"\x7fELF" + os.urandom(4000), "Invalid image: it is neither a tar archive")
    refused(daemon, b"", "the file is empty")


def test_missing_metadata(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "bare.tar.gz"
    with Tarball(path) as tarball:
        tarball.directory("rootfs")
    refused(daemon, path.read_bytes(), "Metadata tarball is missing metadata.yaml")


def test_upload_that_breaks_off(daemon: Daemon, busybox_image: Path) -> None:
    """A client that goes away in the middle leaves nothing, and the daemon serves on."""
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(str(daemon.socket))
    head = "POST /1.0/images HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"
    raw.sendall(head.encode() + busybox_image.read_bytes()[:100_000])
    images = daemon.directory / "images"
    wait_until(lambda: bool(list(images.glob(".incoming*"))), 10, "the upload begins")
    raw.close()
    wait_until(lambda: not list(images.glob(".incoming*")), 10, "the upload is forgotten")


def test_chunked_upload(daemon: Daemon, fresh: Callable[..., Path]) -> None:
    path = fresh("chunked")
    connection = http.client.HTTPConnection("lxd")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(daemon.socket))
    pieces = iter([path.read_bytes()[:1000], path.read_bytes()[1000:]])
    connection.request("POST", "/1.0/images", pieces, UPLOAD, encode_chunked=True)
    assert connection.getresponse().status == 202
    connection.close()
    wait_until(
        lambda: f"/1.0/images/{digest(path)}" in daemon.api.get("/1.0/images"), 10, "imported"
    )


@pytest.mark.parametrize(
    ("source", "status", "text"),
    [
        ({"type": "image", "protocol": "images", "alias": "plan9/4"}, 404, "No recipe"),
        ({"type": "image", "protocol": "build", "alias": "debian/3"}, 404, "debian/13"),
        ({"type": "image", "protocol": "simplestreams", "alias": "x"}, 400, "write a URL"),
        ({"type": "image", "server": "http://x", "alias": "x"}, 400, "https://HOST:PORT"),
        ({"type": "image", "server": "https://127.0.0.1:9", "alias": "x"}, 400, "Cannot fetch"),
        ({"type": "image", "protocol": "gopher", "alias": "x"}, 400, "Unsupported protocol"),
        (
            {"type": "image", "server": "https://x", "image_type": "virtual-machine", "alias": "x"},
            501,
            "containers only",
        ),
        ({"mode": "push"}, 400, "fingerprint"),
        ({"mode": "push", "fingerprint": "abc/.."}, 400, "invalid fingerprint"),
        ({"type": "image", "protocol": "build"}, 400, "alias or fingerprint"),
        ({"type": "nothing"}, 400, "Invalid images source"),
    ],
)
def test_wrong_sources(daemon: Daemon, source: dict[str, str], status: int, text: str) -> None:
    with pytest.raises(ApiError, match=text) as failure:
        daemon.api.post("/1.0/images", {"source": source})
    assert failure.value.status == status  # 400 is that of a failed operation, too


def test_recipes_are_listed(daemon: Daemon) -> None:
    found = {each["name"]: each for each in daemon.api.get("/1.0/lxpy/recipes")}
    assert found["debian/13"]["aliases"] == ["debian/trixie", "debian/stable"]
    assert "centos/7" in found and "Alpine" in found["alpine/3.23"]["description"]


@pytest.fixture
def setting(daemon: Daemon) -> Iterator[Callable[..., None]]:
    """Set server config keys, which are unset at the end."""
    names: list[str] = []

    def set_keys(**values: str) -> None:
        config = {key.replace("__", ".").replace("_", "-"): value for key, value in values.items()}
        names.extend(config)
        daemon.api.patch("/1.0", {"config": config})

    yield set_keys
    daemon.api.patch("/1.0", {"config": dict.fromkeys(names, "")})


@pytest.mark.parametrize("distribution", ["debian/13", "rockylinux/9"])
def test_mirror_that_does_not_answer(
    daemon: Daemon, setting: Callable[..., None], distribution: str
) -> None:
    mirror = "http://127.0.0.1:9/packages"
    setting(**{f"images__mirror__{distribution.partition('/')[0]}": mirror})
    begin = time.monotonic()
    source = {"type": "image", "protocol": "build", "alias": distribution}
    with pytest.raises(ApiError, match=rf"package mirror {mirror} did not answer"):
        daemon.api.post("/1.0/images", {"source": source})
    assert time.monotonic() - begin < 10
    assert not list((daemon.directory / "images").glob(".incoming*"))


def test_mirror_that_must_be_set(daemon: Daemon) -> None:
    source = {"type": "image", "protocol": "images", "mode": "pull", "alias": "centos/7"}
    with pytest.raises(ApiError, match=r"images\.mirror\.centos"):
        daemon.api.post("/1.0/instances", {"name": daemon.name(), "source": source})


def test_simplestreams(
    daemon: Daemon, fresh: Callable[..., Path], setting: Callable[..., None], tmp_path: Path
) -> None:
    tree = Tree(tmp_path / "www")
    old, new = fresh("stream-1"), fresh("stream-2")
    tree.unified("busy/1", "20250101", old)
    source = {"type": "image", "mode": "pull", "protocol": "simplestreams", "alias": "busy/1"}
    with serve(tree.root) as server:
        source["server"] = server.url
        name = launch(daemon, source)
        found = daemon.api.get(f"/1.0/images/{digest(old)}")
        assert found["cached"] and found["properties"]["description"].startswith("Tiny One")
        assert found["update_source"]["server"] == server.url
        config = daemon.api.get(f"/1.0/instances/{name}")["config"]
        assert config["volatile.base_image"] == digest(old)
        assert config["image.serial"] == "20250101"
        # the lists are fresh enough: another launch asks the server for nothing
        asked = len(server.paths)
        launch(daemon, source)
        assert len(server.paths) == asked
        # ours by wish now, and named
        copied = daemon.api.post("/1.0/images", {"source": source, "aliases": [{"name": "mine"}]})
        assert copied["metadata"]["fingerprint"] == digest(old)
        assert not daemon.api.get(f"/1.0/images/{digest(old)}")["cached"]
        assert daemon.api.get("/1.0/images/aliases/mine")["target"] == digest(old)
        # a newer one appears
        tree.unified("busy/1", "20260101", new)
        for kept in (daemon.directory / "cache/streams").iterdir():
            os.utime(kept, (time.time() - 7200,) * 2)
        done = daemon.api.post(f"/1.0/images/{digest(old)}/refresh", {})
        assert done["metadata"]["refreshed"] is True
        assert daemon.api.get("/1.0/images/aliases/mine")["target"] == digest(new)
    # the server is gone: what is here is used, by server and by `images:`
    for kept in (daemon.directory / "cache/streams").iterdir():
        os.utime(kept, (time.time() - 7200,) * 2)
    launch(daemon, source)
    setting(images__servers=server.url)
    begin = time.monotonic()
    with pytest.raises(ApiError, match=r"not found on http://127.*No recipe"):
        launch(daemon, {"type": "image", "protocol": "images", "mode": "pull", "alias": "busy/9"})
    assert time.monotonic() - begin < 10


def test_images_asks_the_servers(
    daemon: Daemon, fresh: Callable[..., Path], setting: Callable[..., None], tmp_path: Path
) -> None:
    """One download serves all who want the image at the same time."""
    tree, path = Tree(tmp_path / "www"), fresh("many")
    tree.unified("busy/7", "20260101", path)
    with serve(tree.root) as server:
        setting(images__servers=f"http://127.0.0.1:9,{server.url}")
        source = {"type": "image", "protocol": "images", "mode": "pull", "alias": "busy/7"}
        threads = [threading.Thread(target=launch, args=(daemon, source)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(path.startswith("/images/") for path in server.paths) == 1
    users = [
        each
        for each in daemon.api.get("/1.0/instances?recursion=1")
        if each["config"]["volatile.base_image"] == digest(path)
    ]
    assert len(users) == 4


def test_image_behind_a_url(daemon: Daemon, fresh: Callable[..., Path], tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        source = {"type": "url", "url": f"{server.url}/image"}
        fresh("url").rename(tmp_path / "image")
        with pytest.raises(ApiError, match="Missing LXD-Image-Hash header"):
            daemon.api.post("/1.0/images", {"source": source})
        source["url"] = f"{server.url}/nothing"
        with pytest.raises(ApiError, match="the server has no such file"):
            daemon.api.post("/1.0/images", {"source": source})


def launch(daemon: Daemon, source: dict[str, str]) -> str:
    name = daemon.name()
    daemon.api.post("/1.0/instances", {"name": name, "source": source})
    return name


def test_token_to_push(daemon: Daemon, fresh: Callable[..., Path]) -> None:
    """Who has a token's secret may send that image, and waits for its end by another secret."""
    path = fresh("pushed")
    fingerprint = digest(path)
    wish = {"source": {"mode": "push", "fingerprint": fingerprint}, "public": True,
            "properties": {"colour": "blue"}, "aliases": [{"name": "pushed"}]}  # fmt: skip
    token = daemon.api.call("POST", "/1.0/images", wish, wait=False)
    assert token["class"] == "token" and token["description"] == "Image download token"
    assert token["resources"] == {"images": [f"/1.0/images/{fingerprint}"]}
    secret = token["metadata"].pop("secret")
    assert token["metadata"] == {
        "aliases": [{"name": "pushed", "description": ""}], "expires_at": "0001-01-01T00:00:00Z",
        "properties": {"colour": "blue"}, "public": True,
    }  # fmt: skip
    headers = {**UPLOAD, "X-LXD-fingerprint": fingerprint, "X-LXD-secret": secret}
    begun = daemon.api.call("POST", "/1.0/images", path.read_bytes(), headers, wait=False)
    url = f"/1.0/operations/{begun['id']}/wait?secret="
    with pytest.raises(ApiError, match="403: not authorized"):
        daemon.api.get(f"{url}wrong")
    waiter = daemon.api.get(f"/1.0/operations/{begun['id']}")["metadata"]["secret"]
    assert waiter != secret and daemon.api.get(url + waiter)["status"] == "Success"
    found = daemon.api.get(f"/1.0/images/{fingerprint}")
    assert found["public"] and found["properties"] == {"colour": "blue"}
    assert [alias["name"] for alias in found["aliases"]] == ["pushed"]
    assert daemon.api.get(f"/1.0/operations/{token['id']}")["status"] == "Cancelled"


def test_secret(daemon: Daemon, fresh: Callable[..., Path]) -> None:
    fingerprint = import_image(daemon, fresh("secret"), "secret")
    token = daemon.api.call("POST", f"/1.0/images/{fingerprint[:12]}/secret", {}, wait=False)
    assert token["class"] == "token" and token["may_cancel"]
    assert token["resources"] == {"images": [f"/1.0/images/{fingerprint}"]}
    assert len(token["metadata"]["secret"]) == 64
    daemon.api.delete(f"/1.0/operations/{token['id']}")
    with pytest.raises(ApiError, match="404: Image not found"):
        daemon.api.post("/1.0/images/nothing/secret", {})


def test_refresh_without_a_source(daemon: Daemon, fresh: Callable[..., Path]) -> None:
    fingerprint = import_image(daemon, fresh("no-source"), "no-source")
    with pytest.raises(ApiError, match="Image source not found"):
        daemon.api.post(f"/1.0/images/{fingerprint}/refresh", {})


def test_prefixes(daemon: Daemon, tmp_path: Path) -> None:
    """Two images whose fingerprints begin the same are told apart by writing more."""
    made: dict[str, Path] = {}
    number = 0
    while True:
        path = busybox.build(tmp_path / f"{number}.tar.gz", f"prefix-{number}")
        first = digest(path)[0]
        if first in made:
            break
        made[first] = path
        number += 1
    known = [import_image(daemon, each, f"p{n}") for n, each in enumerate((made[first], path))]
    try:
        with pytest.raises(ApiError, match="400: More than one image matches"):
            daemon.api.get(f"/1.0/images/{first}")
        assert daemon.api.get(f"/1.0/images/{known[0][:12]}")["fingerprint"] == known[0]
    finally:
        for each in known:
            daemon.api.delete(f"/1.0/images/{each}")


def test_images_of_all_projects(daemon: Daemon, fresh: Callable[..., Path]) -> None:
    fingerprint = import_image(daemon, fresh("everywhere"), "everywhere")
    found = daemon.api.get("/1.0/images?all-projects=true&recursion=1")
    assert {each["fingerprint"]: each["project"] for each in found}[fingerprint] == "default"
    assert f"/1.0/images/{fingerprint}" in daemon.api.get("/1.0/images?all-projects=true")
    with pytest.raises(ApiError, match="400: Cannot specify a project"):
        daemon.api.get("/1.0/images?all-projects=true&project=default")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("2030-01-01T00:00:00+05:00", "2029-12-31T19:00:00Z"),
        ("9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59Z"),
        ("0001-01-01T00:00:00+12:00", "1970-01-01T00:00:00Z"),
        (None, "1970-01-01T00:00:00Z"),
    ],
)
def test_expiry_that_is_written(
    daemon: Daemon, fresh: Callable[..., Path], given: str | None, shown: str
) -> None:
    """In any zone, to the ends of time."""
    fingerprint = import_image(daemon, fresh("expiry"), "expiry")
    for method in ("PUT", "PATCH"):
        daemon.api.call(method, f"/1.0/images/{fingerprint}", {"expires_at": given})
        assert daemon.api.get(f"/1.0/images/{fingerprint}")["expires_at"] == shown
