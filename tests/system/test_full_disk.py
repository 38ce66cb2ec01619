"""A full disk: what was begun is undone, nothing is half made, and space heals everything."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.images import busybox
from tests.images.streams import Tree, serve
from tests.support.api import ApiError
from tests.support.daemon import Daemon, mounts_below
from tests.support.fixtures import change, create, import_image

MIB = 1024**2
SIZE_MIB = 96


@pytest.fixture
def small(work_directory: Path, commands: Path, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A daemon whose directory is a small file system of its own."""
    directory = work_directory / request.node.name
    image = directory.with_suffix(".ext4")
    directory.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE_MIB * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", image, directory], check=True)
    daemon = Daemon(directory, commands)
    try:
        daemon.start()
        yield daemon
        daemon.shutdown()
    finally:
        daemon.power_cut()
        for target in mounts_below(directory):
            subprocess.run(["umount", "--lazy", target], check=False)
        image.unlink()


class Filler:
    """Takes all the space there is, or all but some, and gives it back."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "filler"

    def fill(self, leave_bytes: int = 0) -> None:
        """Leave so much free."""
        for size in ("64k", "4k"):
            done = subprocess.run(
                ["dd", "if=/dev/zero", f"of={self.file}", f"bs={size}", "oflag=append",
                 "conv=notrunc,fsync"],
                capture_output=True,
                check=False,
            )  # fmt: skip
            assert b"No space" in done.stderr
        if leave_bytes:
            with self.file.open("r+b") as file:
                file.truncate(self.file.stat().st_size - leave_bytes)

    def free(self) -> None:
        self.file.unlink(missing_ok=True)


def big_image(path: Path, size_mib: int) -> Path:
    """An image with a file that compresses well and unpacks to much."""
    with busybox.Tarball(path) as tarball:
        busybox.fill_metadata(tarball, "big")
        busybox.fill_rootfs(tarball)
        tarball.file("rootfs/big", b"x" * (size_mib * MIB))
    return path


def entries(daemon: Daemon) -> set[str]:
    """Everything of pools and images, but for records and for what is swept up later."""
    found = (
        path.relative_to(daemon.directory)
        for top in ("storage-pools", "images")
        for path in (daemon.directory / top).glob("*/*/*")
    )
    return {
        str(path)
        for path in found
        if not path.name.startswith(".") and path.parent.name != "records"
    }


def fails(action: Callable[[], object]) -> str:
    """The text of the error that an action must raise."""
    with pytest.raises(ApiError) as error:
        action()
    return error.value.text


def test_full_while_an_image_is_unpacked(small: Daemon, work_directory: Path) -> None:
    image = big_image(work_directory / "big.tar.gz", 60)
    import_image(small, image, "big")
    filler = Filler(small.directory)
    filler.fill(20 * MIB)
    before = entries(small)
    text = fails(lambda: create(small, "big", "c1"))
    assert "space" in text.lower()
    assert small.instances() == [] and entries(small) == before
    filler.free()
    create(small, "big", "c1")
    change(small, "c1", "start")
    assert small.out("c1", "stat", "-c", "%s", "/big") == str(60 * MIB)
    small.delete("c1")


def test_full_while_an_image_is_uploaded(small: Daemon, busybox_image: Path) -> None:
    filler = Filler(small.directory)
    filler.fill(512 * 1024)
    text = fails(lambda: import_image(small, busybox_image, "tiny"))
    assert "space" in text.lower()
    filler.free()
    assert small.api.get("/1.0/images") == []
    import_image(small, busybox_image, "tiny")
    create(small, "tiny", "c1")
    small.delete("c1")


def test_full_while_the_database_commits(small: Daemon, busybox_image: Path) -> None:
    import_image(small, busybox_image, "tiny")
    create(small, "tiny", "before")
    change(small, "before", "start")
    filler = Filler(small.directory)
    filler.fill()
    before = entries(small)
    for action in (
        lambda: create(small, "tiny", "new"),
        lambda: small.api.patch("/1.0/instances/before", {"config": {"user.k": "v" * 200_000}}),
        lambda: small.api.post("/1.0/profiles", {"name": "p", "description": "d" * 200_000}),
    ):
        text = fails(action)
        assert "space" in text.lower() or "full" in text.lower(), text
    assert entries(small) == before
    # Looking, running commands, stopping and deleting go on: that is how space comes back.
    assert small.instances() == ["before"]
    assert "user.k" not in small.api.get("/1.0/instances/before")["config"]
    assert small.out("before", "echo", "alive") == "alive"
    filler.free()
    create(small, "tiny", "new")
    change(small, "new", "start")
    assert small.out("new", "echo", "works") == "works"
    small.restart()
    assert sorted(small.instances()) == ["before", "new"]
    for name in small.instances():
        small.delete(name)


def test_deleting_makes_room_on_a_full_disk(small: Daemon, busybox_image: Path) -> None:
    import_image(small, busybox_image, "tiny")
    create(small, "tiny", "hog")
    change(small, "hog", "start")
    small.exec("hog", "sh", "-c", "cat /dev/zero >/root/file", check=False, timeout=60)
    small.exec("hog", "sync", check=False)
    small.delete("hog")
    assert small.instances() == []
    create(small, "tiny", "next")
    change(small, "next", "start")
    assert small.out("next", "echo", "room") == "room"
    small.delete("next")


def test_full_while_an_image_is_downloaded(small: Daemon, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "www")
    fingerprint = tree.unified("busy", "20260101", busybox.build(tmp_path / "i.tar.gz", "full"))
    filler = Filler(small.directory)
    with serve(tree.root) as server:
        source = {"type": "image", "mode": "pull", "protocol": "simplestreams", "alias": "busy",
                  "server": server.url}  # fmt: skip
        small.api.get(f"/1.0/lxpy/offers?server={server.url}")  # the lists are small, and kept
        filler.fill(512 * 1024)
        text = fails(lambda: small.api.post("/1.0/images", {"source": source}))
        assert "No space left" in text
        assert small.api.get("/1.0/images") == []
        assert list((small.directory / "images").iterdir()) == []
        filler.free()
        small.api.post("/1.0/images", {"source": source})
    assert small.api.get("/1.0/images") == [f"/1.0/images/{fingerprint}"]
