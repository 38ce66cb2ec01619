"""Images between servers, and as time goes by: copies, automatic updates, the cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.images import busybox
from tests.images.streams import Tree, serve
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import change, import_image
from tests.support.processes import wait_until
from tests.support.tls import Front


def digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@pytest.fixture
def other(own_daemon: Daemon, daemon: Daemon) -> Iterator[Daemon]:
    """Another daemon, which the shared one's command line knows as `other:`."""
    conf = Path(daemon.environment["LXPY_CONF"]) / "config.yml"
    conf.write_text(f"remotes: {{other: {{addr: 'unix://{own_daemon.socket}'}}}}\n")
    yield own_daemon
    conf.unlink()


@pytest.fixture
def clean(daemon: Daemon) -> Iterator[None]:
    """Images that a test leaves in the shared daemon are deleted."""
    before = set(daemon.api.get("/1.0/images"))
    yield
    for url in set(daemon.api.get("/1.0/images")) - before:
        daemon.api.delete(url)


def files_of(daemon: Daemon, fingerprint: str) -> list[Path]:
    return sorted((daemon.directory / "images").glob(f"{fingerprint}*"))


@pytest.mark.usefixtures("clean")
def test_copy_between_servers_that_are_not_on_the_network(
    daemon: Daemon, other: Daemon, tmp_path: Path
) -> None:
    """The command line relays: same bytes, same properties, nothing on this side."""
    one = busybox.build(tmp_path / "one.tar.gz", "relay-1")
    meta, rootfs = busybox.build_split(tmp_path / "meta.tar.xz", tmp_path / "rootfs.tar.gz")
    daemon.lxpy("image", "import", one, "--alias", "os/one", "colour=green and blue")
    daemon.lxpy("image", "import", meta, rootfs, "--alias", "parts")
    done = daemon.lxpy("image", "copy", "os/one", "other:", "--copy-aliases", "--alias", "more")
    assert done.stdout == "Image copied successfully!\n"
    found = other.api.get(f"/1.0/images/{digest(one)}")
    assert found["properties"]["colour"] == "green and blue" and not found["public"]
    assert found["filename"] == "one.tar.gz"
    assert [alias["name"] for alias in found["aliases"]] == ["more", "os/one"]
    daemon.lxpy("image", "copy", "parts", "other:", "--public", "--mode", "relay")
    assert other.api.get(f"/1.0/images/{digest(meta, rootfs)}")["public"]
    assert len(files_of(other, digest(meta, rootfs))) == 2
    assert b"".join(file.read_bytes() for file in files_of(other, digest(one))) == one.read_bytes()
    for words, text in (
        (("os/one", "other:", "--mode", "pull"), "isn't listening on the network"),
        (("os/one", "other:", "--mode", "push"), "isn't listening on the network"),
        (("os/one", "local:"), "servers must be different"),
        (("os/one", "other:name"), "Can't provide a name"),
        (("nothing", "other:"), "not found"),
        (("os/one", "other:"), "already exists"),
    ):
        done = daemon.lxpy("image", "copy", *words, check=False)
        assert done.returncode == 1 and text in done.stderr
    done = daemon.lxpy("launch", "os/one", "other:c1", check=False)
    assert done.returncode == 1 and "isn't listening on the network" in done.stderr
    daemon.lxpy("launch", "other:more", "other:c1")
    assert other.out("c1", "hostname") == "c1"


def forget_lists(daemon: Daemon) -> None:
    """Make what the daemon keeps of its image servers two hours older."""
    for kept in (daemon.directory / "cache/streams").iterdir():
        os.utime(kept, (time.time() - 7200,) * 2)


def test_publish_to_another_server(
    daemon: Daemon, other: Daemon, launch: Callable[..., str]
) -> None:
    """The image is made here, goes there, and does not stay here."""
    name, before = launch(), daemon.api.get("/1.0/images")
    daemon.exec(name, "sh", "-c", "echo mine >/root/file")
    words = ("--force", "--alias", "made", "--public", "kind=published")
    out = daemon.lxpy("publish", name, "other:", *words).stdout
    fingerprint = other.api.get("/1.0/images/aliases/made")["target"]
    assert f"Instance published with fingerprint: {fingerprint}" in out
    found = other.api.get(f"/1.0/images/{fingerprint}")
    assert found["public"] and found["properties"]["kind"] == "published"
    assert daemon.api.get("/1.0/images") == before and not files_of(daemon, fingerprint)
    other.lxpy("launch", "made", "c1")
    assert other.out("c1", "cat", "/root/file") == "mine"


@pytest.fixture
def config(daemon: Daemon) -> Iterator[Callable[[dict[str, str]], None]]:
    """Set server config keys, which are unset at the end."""
    names: set[str] = set()

    def apply(values: dict[str, str]) -> None:
        names.update(values)
        daemon.api.patch("/1.0", {"config": values})

    yield apply
    daemon.api.patch("/1.0", {"config": dict.fromkeys(names, "")})


@pytest.mark.usefixtures("clean")
def test_images_are_kept_up_to_date(
    daemon: Daemon, config: Callable[[dict[str, str]], None], tmp_path: Path
) -> None:
    """A newer one takes names and properties over; instances of the old one go on."""
    tree = Tree(tmp_path / "www")
    old, new = (busybox.build(tmp_path / f"{n}.tar.gz", f"update-{n}") for n in "12")
    tree.unified("busy/auto", "20250101", old)
    source = {"type": "image", "mode": "pull", "protocol": "simplestreams", "alias": "busy/auto"}
    with serve(tree.root) as server:
        source["server"] = server.url
        body = {"source": source, "auto_update": True, "aliases": [{"name": "web/base"}]}
        daemon.api.post("/1.0/images", {**body, "properties": {"owner": "me"}})
        name = daemon.name()
        daemon.api.post(
            "/1.0/instances", {"name": name, "source": {"type": "image", "alias": "web/base"}}
        )
        tree.unified("busy/auto", "20260101", new)
        forget_lists(daemon)
        config({"images.auto_update_interval": "1"})  # which has the daemon look at once
        wait_until(
            lambda: daemon.api.get("/1.0/images/aliases/web/base")["target"] == digest(new),
            30, "the image is updated",
        )  # fmt: skip
    found = daemon.api.get(f"/1.0/images/{digest(new)}")
    assert found["auto_update"] and found["properties"]["owner"] == "me"
    assert found["properties"]["serial"] == "20260101" and found["last_used_at"] > "2000"
    wait_until(lambda: not files_of(daemon, digest(old)), 10, "the old files are gone")
    with pytest.raises(ApiError, match="Image not found"):
        daemon.api.get(f"/1.0/images/{digest(old)}")
    change(daemon, name, "start")
    assert daemon.out(name, "hostname") == name


@pytest.mark.usefixtures("clean")
def test_cached_images_are_updated_if_wanted(
    daemon: Daemon, config: Callable[[dict[str, str]], None], tmp_path: Path
) -> None:
    tree = Tree(tmp_path / "www")
    image = busybox.build(tmp_path / "image.tar.gz", "not-updated")
    tree.unified("busy/cached", "20250101", image)
    config({"images.auto_update_cached": "false"})
    with serve(tree.root) as server:
        source = {"type": "image", "mode": "pull", "protocol": "simplestreams",
                  "alias": "busy/cached", "server": server.url}  # fmt: skip
        daemon.api.post("/1.0/instances", {"name": daemon.name(), "source": source})
    found = daemon.api.get(f"/1.0/images/{digest(image)}")
    assert found["cached"] and not found["auto_update"]


@pytest.mark.usefixtures("clean")
def test_what_is_kept_up_to_date_is_used_as_it_is(
    daemon: Daemon, config: Callable[[dict[str, str]], None], tmp_path: Path
) -> None:
    """No server is asked at a launch, unless images are never updated."""
    tree = Tree(tmp_path / "www")
    old, new = (busybox.build(tmp_path / f"{n}.tar.gz", f"kept-{n}") for n in "12")
    tree.unified("busy/kept", "20250101", old)
    with serve(tree.root) as server:
        source = {"type": "image", "mode": "pull", "protocol": "simplestreams",
                  "alias": "busy/kept", "server": server.url}  # fmt: skip

        def used() -> str:
            name = daemon.name()
            daemon.api.post("/1.0/instances", {"name": name, "source": source})
            return str(daemon.api.get(f"/1.0/instances/{name}")["config"]["volatile.base_image"])

        assert used() == digest(old)
        tree.unified("busy/kept", "20260101", new)
        forget_lists(daemon)
        assert used() == digest(old)
        config({"images.auto_update_interval": "0"})
        assert used() == digest(new)


def age(daemon: Daemon, fingerprint: str, **columns: str) -> None:
    """Change dates of an image in the database of a daemon that is down."""

    with sqlite3.connect(daemon.directory / "lxpy.db") as database:
        for column, value in columns.items():
            query = f"UPDATE images SET {column} = ? WHERE fingerprint = ?"
            database.execute(query, (value, fingerprint))
    database.close()


def test_cache_expires(own_daemon: Daemon, tmp_path: Path) -> None:
    """Cached images go when nobody has used them for long; those that were asked for stay."""
    daemon, tree = own_daemon, Tree(tmp_path / "www")
    names = ("unused", "used", "obsolete", "kept")
    images = {name: busybox.build(tmp_path / f"{name}.tar.gz", name) for name in names}
    with serve(tree.root) as server:
        for name, image in images.items():
            tree.unified(name, "20250101", image)
        for name in names[:3]:
            source = {"type": "image", "mode": "pull", "protocol": "simplestreams",
                      "alias": name, "server": server.url}  # fmt: skip
            daemon.api.post("/1.0/instances", {"name": name, "source": source})
    kept = import_image(daemon, images["kept"], "kept")
    daemon.stop()
    long_ago, lately, ever = (
        "2020-01-01 00:00:00.000000",
        time.strftime("%Y-%m-%d 00:00:00.000000", time.gmtime(time.time() - 3 * 86400)),
        "2021-01-01 00:00:00.000000",
    )
    age(daemon, digest(images["unused"]), last_used_at=long_ago)
    age(daemon, digest(images["used"]), last_used_at=lately)
    age(daemon, digest(images["obsolete"]), last_used_at=lately, expires_at=ever)
    age(daemon, kept, uploaded_at=long_ago, expires_at=ever)
    daemon.start()
    wait_until(lambda: len(daemon.api.get("/1.0/images")) == 2, 10, "two of four are gone")
    found = {url.rpartition("/")[2] for url in daemon.api.get("/1.0/images")}
    assert found == {digest(images["used"]), kept}
    daemon.api.put("/1.0/instances/unused/state", {"action": "start"})
    assert daemon.out("unused", "hostname") == "unused"


def test_unpacked_copy_without_image_is_swept(own_daemon: Daemon, tmp_path: Path) -> None:
    """A daemon that died after the row was deleted, before the pool's copy was, tidies up."""

    daemon = own_daemon
    fingerprint = import_image(daemon, busybox.build(tmp_path / "i.tar.gz", "swept"), "swept")
    source = {"type": "image", "alias": "swept"}
    daemon.api.post("/1.0/instances", {"name": "c1", "source": source})
    daemon.delete("c1")
    pool = daemon.directory / "storage-pools/default/images"
    assert any(fingerprint in entry.name for entry in pool.iterdir())
    daemon.kill()
    with sqlite3.connect(daemon.directory / "lxpy.db") as database:
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("DELETE FROM images WHERE fingerprint = ?", (fingerprint,))
    database.close()
    daemon.start()
    assert not any(fingerprint in entry.name for entry in pool.iterdir())
    assert not files_of(daemon, fingerprint)


@pytest.mark.parametrize("moment", ["download", "recorded"])
def test_update_that_is_killed(own_daemon: Daemon, tmp_path: Path, moment: str) -> None:
    """Nothing is lost: the old image serves on, and the next refresh goes on."""
    daemon, tree = own_daemon, Tree(tmp_path / "www")
    old, new = (busybox.build(tmp_path / f"{n}.tar.gz", f"killed-{n}") for n in "12")
    tree.unified("busy", "20250101", old)
    with serve(tree.root) as server:
        source = {"type": "image", "mode": "pull", "protocol": "simplestreams",
                  "alias": "busy", "server": server.url}  # fmt: skip
        daemon.api.post("/1.0/images", {"source": source, "aliases": [{"name": "mine"}]})
        tree.unified("busy", "20260101", new)
        forget_lists(daemon)
        images = daemon.directory / "images"
        daemon.api.call("POST", f"/1.0/images/{digest(old)}/refresh", {}, wait=False)
        if moment == "download":
            wait_until(
                lambda: bool(list(images.glob(".incoming*"))) or moved(daemon, new), 10, "begun"
            )
        else:
            wait_until(lambda: moved(daemon, new), 10, "recorded")
        daemon.kill()
        daemon.start()
        assert not list(images.glob(".incoming*"))
        target = daemon.api.get("/1.0/images/aliases/mine")["target"]
        assert target in (digest(old), digest(new)) and files_of(daemon, target)
        if target == digest(old):
            forget_lists(daemon)
            done = daemon.api.post(f"/1.0/images/{target}/refresh", {})
            assert done["metadata"]["refreshed"]
    assert daemon.api.get("/1.0/images/aliases/mine")["target"] == digest(new)
    assert daemon.api.get("/1.0/images") == [f"/1.0/images/{digest(new)}"]


def moved(daemon: Daemon, image: Path) -> bool:
    return f"/1.0/images/{digest(image)}" in daemon.api.get("/1.0/images")


def test_what_an_image_server_has(daemon: Daemon, tmp_path: Path) -> None:
    """`lxpy image list` and `info` of a simplestreams remote; the newest bears the alias."""
    tree = Tree(tmp_path / "www")
    old, new = (busybox.build(tmp_path / f"{n}.tar.gz", f"offer-{n}") for n in "12")
    tree.unified("busy/1", "20250101", old)
    tree.unified("busy/1", "20260101", new)
    with serve(tree.root) as server:
        found: list[dict[str, Any]] = daemon.api.get(f"/1.0/lxpy/offers?server={server.url}")
        assert [each["fingerprint"] for each in found] == [digest(new), digest(old)]
        names = ["busy/1", "busy/1/amd64", "busy/1/default", "busy/1/default/amd64"]
        assert [each["name"] for each in found[0]["aliases"]] == names
        assert found[1]["aliases"] == [] and found[0]["created_at"] == "2026-01-01T00:00:00Z"
        conf = Path(daemon.environment["LXPY_CONF"]) / "config.yml"
        conf.write_text(json.dumps(
            {"remotes": {"tiny": {"addr": server.url, "protocol": "simplestreams"}}}
        ))  # fmt: skip
        try:
            out = daemon.lxpy("image", "list", "tiny:", "-f", "csv", "-c", "lF").stdout
            assert out.splitlines() == [f"busy/1 (3 more),{digest(new)}", f",{digest(old)}"]
            assert digest(new) in daemon.lxpy("image", "info", "tiny:busy/1").stdout
            before = daemon.api.get("/1.0/images")
            daemon.lxpy("image", "copy", "tiny:busy/1", "local:", "--copy-aliases")
            aliases = daemon.api.get(f"/1.0/images/{digest(new)}")["aliases"]
            assert [each["name"] for each in aliases] == names
            name = daemon.name()
            daemon.lxpy("launch", "tiny:busy/1", name)
            assert daemon.out(name, "hostname") == name
            daemon.api.delete(f"/1.0/images/{digest(new)}")
            assert daemon.api.get("/1.0/images") == before
        finally:
            conf.unlink()
    with pytest.raises(ApiError, match="400: Invalid image server"):
        daemon.api.get("/1.0/lxpy/offers")


def test_architecture_of_offers(
    daemon: Daemon, config: Callable[[dict[str, str]], None], tmp_path: Path
) -> None:
    """Images are for this host, or for what `images.default_architecture` says."""
    tree, found = Tree(tmp_path / "www"), []
    for name, architecture in (("here", os.uname().machine), ("there", "riscv64")):
        image = busybox.build(tmp_path / f"{name}.tar.gz", name)
        tree.unified(name, "20260101", image, arch=architecture)
    with serve(tree.root) as server:
        for wanted in ("", "riscv64"):
            config({"images.default_architecture": wanted})
            found += daemon.api.get(f"/1.0/lxpy/offers?server={server.url}")
    assert [each["aliases"][0]["name"] for each in found] == ["here", "there"]


def test_proxy(daemon: Daemon, config: Callable[[dict[str, str]], None], tmp_path: Path) -> None:
    """Downloads go through the proxy of the server's config, but for hosts that need none."""
    image = busybox.build(tmp_path / "image.tar.gz", "by-proxy")
    tree = Tree(tmp_path / "http:/streams.invalid")
    tree.unified("busy", "20260101", image)
    offers = "/1.0/lxpy/offers?server=http://streams.invalid"
    with serve(tmp_path) as proxy:
        with pytest.raises(ApiError, match="Cannot fetch http://streams.invalid"):
            daemon.api.get(offers)
        config({"core.proxy_http": proxy.url})
        assert daemon.api.get(offers)[0]["fingerprint"] == digest(image)
        assert proxy.paths[0] == "http://streams.invalid/streams/v1/index.json"
        shutil.rmtree(daemon.directory / "cache/streams")
        config({"core.proxy_ignore_hosts": "example.com,streams.invalid"})
        with pytest.raises(ApiError, match="Cannot fetch http://streams.invalid"):
            daemon.api.get(offers)


def test_import_of_a_directory(daemon: Daemon, tmp_path: Path) -> None:

    tree = tmp_path / "tree"
    tree.mkdir()
    image = busybox.build(tmp_path / "image.tar.gz", "directory")
    subprocess.run(["tar", "-xpf", image, "-C", tree], check=True)
    daemon.lxpy("image", "import", tree, "--alias", "from-directory", "made=here")
    name = daemon.name()
    daemon.lxpy("launch", "from-directory", name)
    assert daemon.out(name, "hostname") == name
    assert daemon.lxpy("image", "get-property", "from-directory", "made").stdout == "here\n"
    daemon.lxpy("image", "delete", "from-directory")
    done = daemon.lxpy("image", "import", tmp_path, check=False)
    assert done.returncode == 1 and "no metadata.yaml" in done.stderr


@pytest.mark.usefixtures("clean")
def test_unpacked_copy_is_deleted_by_itself(daemon: Daemon, tmp_path: Path) -> None:
    """The pool's copy goes, the image stays, and is unpacked again for the next instance."""
    fingerprint = import_image(daemon, busybox.build(tmp_path / "i.tar.gz", "volume"), "volume")
    source = {"type": "image", "alias": "volume"}
    first, second = daemon.name(), daemon.name()
    url = f"/1.0/storage-pools/default/volumes/image/{fingerprint}"
    daemon.api.post("/1.0/instances", {"name": first, "source": source})
    assert daemon.api.get(url)["used_by"] == [f"/1.0/images/{fingerprint}"]
    daemon.lxpy("storage", "volume", "delete", "default", f"image/{fingerprint}")
    with pytest.raises(ApiError, match="404: Storage pool volume not found"):
        daemon.api.delete(url)
    daemon.api.post("/1.0/instances", {"name": second, "source": source})
    assert daemon.api.get(url)["name"] == fingerprint
    for name in (first, second):
        change(daemon, name, "start")
        assert daemon.out(name, "hostname") == name


@pytest.fixture
def away(own_daemon: Daemon, tmp_path: Path) -> Iterator[tuple[Daemon, Front]]:
    """Another daemon, reached by TLS."""
    front = Front(own_daemon.socket, tmp_path / "front.pem")
    yield own_daemon, front
    front.close()


@pytest.mark.usefixtures("clean")
def test_pull_and_push_between_daemons(
    daemon: Daemon, away: tuple[Daemon, Front], tmp_path: Path
) -> None:
    """Bytes, properties and profiles come along; what is not the newest is fetched by refresh."""
    other, front = away
    images = [busybox.build(tmp_path / f"{n}.tar.gz", f"between-{n}") for n in (1, 2)]
    parts = busybox.build_split(tmp_path / "meta.tar.xz", tmp_path / "rootfs.tar.gz")
    place = {"type": "image", "server": front.url, "protocol": "lxd", "mode": "pull",
             "certificate": front.certificate}  # fmt: skip
    first = import_image(other, images[0], "base")
    other.api.patch(f"/1.0/images/{first}", {"public": True, "properties": {"from": "there"}})
    body = {"source": {**place, "alias": "base"}, "auto_update": True,
            "aliases": [{"name": "ours"}]}  # fmt: skip
    done = daemon.api.post("/1.0/images", body)
    assert done["metadata"]["fingerprint"] == first
    found = daemon.api.get(f"/1.0/images/{first}")
    assert found["properties"]["from"] == "there" and not found["public"]
    # a newer one gets the alias there
    second = import_image(other, images[1], "newer")
    other.api.put("/1.0/images/aliases/base", {"target": second})
    assert daemon.api.post(f"/1.0/images/{first}/refresh", {})["metadata"]["refreshed"]
    assert daemon.api.get("/1.0/images/aliases/ours")["target"] == second
    # and the other way, to a daemon that awaits it
    daemon.lxpy("image", "import", *parts, "--alias", "parts")
    third = digest(*parts)
    token = other.api.call(
        "POST", "/1.0/images", {"source": {"mode": "push", "fingerprint": third}}, wait=False
    )
    target = {"target": front.url, "certificate": front.certificate,
              "secret": token["metadata"]["secret"], "profiles": ["default"]}  # fmt: skip
    daemon.api.post(f"/1.0/images/{third}/export", target)
    assert len(files_of(other, third)) == 2
    assert other.api.get(f"/1.0/images/{third}")["profiles"] == ["default"]
    with pytest.raises(ApiError, match="Image with same fingerprint already exists"):
        daemon.api.post(f"/1.0/images/{third}/export", target)


def test_pull_that_is_interrupted(
    daemon: Daemon, away: tuple[Daemon, Front], tmp_path: Path
) -> None:
    """The source dies, or the operation is cancelled: the error says so, and nothing is left."""
    other, front = away
    image = tmp_path / "large.tar.gz"
    with busybox.Tarball(image) as tarball:
        busybox.fill_metadata(tarball, "large")
        busybox.fill_rootfs(tarball)
        tarball.file("rootfs/large", os.urandom(48 << 20))
    fingerprint = import_image(other, image, "large")
    token = other.api.call("POST", f"/1.0/images/{fingerprint}/secret", {}, wait=False)
    source = {"type": "image", "server": front.url, "certificate": front.certificate,
              "fingerprint": fingerprint, "secret": token["metadata"]["secret"]}  # fmt: skip
    images = daemon.directory / "images"
    front.pause_after(4 << 20)
    operation = daemon.api.call("POST", "/1.0/images", {"source": source}, wait=False)
    wait_until(lambda: bool(list(images.glob(".incoming*/*"))), 10, "the download begins")
    daemon.api.delete(f"/1.0/operations/{operation['id']}")
    wait_until(lambda: not list(images.glob(".incoming*")), 10, "the cancelled one is forgotten")
    operation = daemon.api.call("POST", "/1.0/images", {"source": source}, wait=False)
    wait_until(lambda: bool(list(images.glob(".incoming*/*"))), 10, "the download begins again")
    other.kill()
    front.close()
    with pytest.raises(ApiError, match="Cannot fetch https://") as failure:
        daemon.api.wait(operation)
    assert source["secret"] not in failure.value.text
    assert not list(images.glob(".incoming*")) and not files_of(daemon, fingerprint)
    other.start()


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("_", range(2))
def test_image_is_deleted_while_instances_are_made(daemon: Daemon, tmp_path: Path, _: int) -> None:
    """Whoever has begun with it gets it whole; whoever comes later is told that there is none."""
    image = tmp_path / "wide.tar.gz"
    with busybox.Tarball(image) as tarball:
        busybox.fill_metadata(tarball, "wide")
        busybox.fill_rootfs(tarball)
        for number in range(500):
            tarball.file(f"rootfs/usr/share/{number}", str(number))
    fingerprint = import_image(daemon, image, "wide")
    begun = {}
    for name in (daemon.name(), daemon.name(), daemon.name()):
        body = {"name": name, "source": {"type": "image", "alias": "wide"}}
        begun[name] = daemon.api.call("POST", "/1.0/instances", body, wait=False)
    daemon.api.delete(f"/1.0/images/{fingerprint}")
    for name, operation in begun.items():
        try:
            daemon.api.wait(operation)
        except ApiError as error:
            assert "alias not found" in error.text
            continue
        change(daemon, name, "start")
        assert daemon.out(name, "ls", "/usr/share").count("\n") == 499
        daemon.delete(name)
    wait_until(lambda: not files_of(daemon, fingerprint), 10, "the files are gone")
    pool = daemon.directory / "storage-pools/default/images"
    assert not any(fingerprint in entry.name for entry in pool.iterdir())
