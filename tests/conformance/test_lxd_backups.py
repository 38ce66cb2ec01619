"""Backups go from us to a real LXD and back: what comes back is what went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Lxc
from tests.support import processes
from tests.support.daemon import Daemon

FILES = (
    "cd /root; echo mine >file; ln file other; chown 1000:1000 file; chmod 4755 file; mkfifo pipe; "
    "ln -s /etc/passwd link; dd if=/dev/urandom of=data bs=1k count=300 2>/dev/null; "
    "truncate -s 50M sparse; mkdir -p a/b; echo deep >a/b/c; touch -d '2020-02-02 02:02:02' data"
)
LOOK = (
    "cd /root && find . ! -type d -exec stat -c '%n %u %g %a %F %h %s' {} + | sort && "
    "find . -type f | sort | xargs md5sum && readlink link && stat -c %Y data"
)


@pytest.fixture
def original(shared_daemon: Daemon, image: str) -> Iterator[str]:
    """An instance of ours with files of all kinds, and a snapshot from before the last of them."""
    daemon, name = shared_daemon, "traveller"
    daemon.lxpy("launch", image, name)
    daemon.exec(name, "sh", "-c", FILES)
    daemon.api.post(f"/1.0/instances/{name}/snapshots", {"name": "before"})
    daemon.exec(name, "sh", "-c", "echo later >/root/later; rm /root/a/b/c")
    yield name
    daemon.delete(name)


@pytest.mark.parametrize("how", ["backup", "stream"])
def test_to_lxd_and_back(
    shared_daemon: Daemon, lxc: Lxc, lxd: Lxc, original: str, tmp_path: Path, how: str
) -> None:
    daemon, there, back = shared_daemon, tmp_path / "there.tar.zst", tmp_path / "back.tar.gz"
    expected = daemon.out(original, "sh", "-c", LOOK)
    if how == "backup":
        lxc("export", original, there)
    else:
        status, _, data = daemon.api.raw("GET", f"/1.0/instances/{original}/export")
        assert status == 200
        there.write_bytes(data)
    lxd("import", there)
    try:
        snapshots = lxd.query(f"/1.0/instances/{original}/snapshots?recursion=1")
        assert [each["name"] for each in snapshots] == ["before"]
        rootfs = lxd.directory / "storage-pools/default/containers" / original / "rootfs/root"
        assert (rootfs / "later").read_text() == "later\n"
        assert (rootfs / "sparse").stat().st_blocks == 0
        assert (rootfs / "file").stat().st_mode & 0o7777 == 0o4755
        lxd("export", original, back)
    finally:
        lxd("delete", original)
    lxc("import", back, "returned")
    try:
        lxc("start", "returned")
        processes.wait_until(lambda: lxc.status("returned") == "RUNNING", 10, "it runs")
        assert daemon.out("returned", "sh", "-c", LOOK) == expected
        lxc("restore", "returned", "before")
        time.sleep(0.1)
        assert daemon.out("returned", "cat", "/root/a/b/c") == "deep"
        assert daemon.exec("returned", "test", "-e", "/root/later", check=False).returncode == 1
    finally:
        lxc("delete", "--force", "returned")


@pytest.mark.parametrize("content", ["filesystem", "block"])
def test_volumes_to_lxd_and_back(
    shared_daemon: Daemon, lxc: Lxc, lxd: Lxc, tmp_path: Path, content: str
) -> None:
    there, back = tmp_path / "there.tar.gz", tmp_path / "back.tar.gz"
    pools = shared_daemon.directory / "storage-pools/default/custom"
    size = ["size=64MiB"] if content == "block" else []
    lxc("storage", "volume", "create", "default", "luggage", f"--type={content}", *size)
    file = "root.img" if content == "block" else "files/file"
    try:
        with (pools / "luggage" / file).open("r+b" if content == "block" else "wb") as opened:
            opened.write(b"before")
        lxc("storage", "volume", "snapshot", "default", "luggage", "s")
        with (pools / "luggage" / file).open("r+b") as opened:
            opened.write(b"after ")
        lxc("storage", "volume", "export", "default", "luggage", there)
        lxd("storage", "volume", "import", "default", there)
        try:
            found = lxd.query("/1.0/storage-pools/default/volumes/custom/luggage/snapshots")
            assert [each.rpartition("/")[2] for each in found] == ["s"]
            lxd("storage", "volume", "export", "default", "luggage", back)
        finally:
            lxd("storage", "volume", "delete", "default", "luggage")
        lxc("storage", "volume", "import", "default", back, "returned")
        with (pools / "returned" / file).open("rb") as opened:
            assert opened.read(6) == b"after "
        lxc("storage", "volume", "restore", "default", "returned", "s")
        with (pools / "returned" / file).open("rb") as opened:
            assert opened.read(6) == b"before"
    finally:
        for name in ("luggage", "returned"):
            lxc.run("storage", "volume", "delete", "default", name)


def test_the_own_form_of_btrfs(
    shared_daemon: Daemon, lxc: Lxc, lxd: Lxc, busybox_image: Path, tmp_path: Path
) -> None:
    daemon, archive = shared_daemon, tmp_path / "optimized.tar.gz"
    lxd("image", "import", busybox_image, "--alias", "tiny")
    lxd("init", "tiny", "fast", "--storage", "fast")
    try:
        rootfs = lxd.directory / "storage-pools/fast/containers/fast/rootfs/root"
        for number, name in enumerate(("s0", "s1", "")):
            (rootfs / f"file{number}").write_text(f"{number}\n")
            if name:
                lxd("snapshot", "fast", name)
        lxd("export", "fast", archive, "--optimized-storage")
    finally:
        lxd("delete", "fast")
        lxd("image", "delete", "tiny")
    refused = lxc.refused("import", archive, "--storage", "default")
    assert 'in the own form of storage driver "btrfs"' in refused
    lxc("storage", "create", "fast", "btrfs", "size=512MiB")
    try:
        lxc("import", archive)
        lxc("start", "fast")
        assert daemon.out("fast", "sh", "-c", "cat /root/file*") == "0\n1\n2"
        lxc("restore", "fast", "s1")
        assert daemon.out("fast", "sh", "-c", "cat /root/file*") == "0\n1"
        lxc("restore", "fast", "s0")
        assert daemon.out("fast", "sh", "-c", "cat /root/file*") == "0"
        half = tmp_path / "half.tar.gz"
        half.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
        assert "ends early" in lxc.refused("import", half, "again")
        place = daemon.directory / "storage-pools/fast"
        assert not [*place.glob("containers/*again*"), *place.glob("containers-snapshots/*again*")]
    finally:
        lxc.run("delete", "--force", "fast")
        lxc("storage", "delete", "fast")
