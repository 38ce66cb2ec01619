"""Limits of disks, huge pages and swapping: measured, or read from the kernel."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api import ApiError
from tests.support.daemon import CGROUPS, Daemon
from tests.support.fixtures import Launch

pytestmark = pytest.mark.timeout(180)
_MIB = 1 << 20


def _file(daemon: Daemon, name: str, *files: str) -> str:
    """What the kernel has in the first of these control files of an instance."""
    for file in files:
        for base in (CGROUPS, *CGROUPS.iterdir()):
            path = base / daemon.cgroup / name / file
            if path.exists():
                return path.read_text().strip()
    raise AssertionError(f"none of {files}")


def _read_seconds(daemon: Daemon, name: str, path: str, host: Path) -> float:
    """How long the instance takes to read a file that no cache has."""
    with host.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    begin = time.monotonic()
    daemon.exec(name, "dd", f"if={path}", "of=/dev/null", "bs=1M")
    return time.monotonic() - begin


def _set(daemon: Daemon, name: str, **options: str) -> None:
    devices = dict(daemon.api.get(f"/1.0/instances/{name}")["devices"])
    values = {key.replace("_", "."): value for key, value in options.items()}
    changed = {key: value for key, value in {**devices["d"], **values}.items() if value}
    daemon.api.patch(f"/1.0/instances/{name}", {"devices": {"d": changed}})


def test_a_disk_is_slowed_down_and_freed(
    daemon: Daemon, launch: Launch, work_directory: Path
) -> None:
    source = work_directory / "slow"
    source.mkdir()
    data = source / "data"
    data.write_bytes(os.urandom(6 * _MIB))
    source.chmod(0o755)
    try:
        disk = {"type": "disk", "source": str(source), "path": "/d", "limits.read": "2MB"}
        name = launch(devices={"d": disk})
        mounted = daemon.init_pid(name)
        assert _read_seconds(daemon, name, "/d/data", data) > 2
        _set(daemon, name, limits_read="")
        assert _read_seconds(daemon, name, "/d/data", data) < 2
        _set(daemon, name, limits_max="10iops")
        assert " 10" in _file(daemon, name, "blkio.throttle.write_iops_device", "io.max") or (
            "wiops=10" in _file(daemon, name, "io.max")
        )
        assert daemon.init_pid(name) == mounted
        daemon.lxpy("config", "device", "remove", name, "d")
        assert not _file(daemon, name, "blkio.throttle.write_iops_device", "io.max")
    finally:
        data.unlink()
        source.rmdir()


def test_the_root_disk(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    daemon.lxpy("config", "device", "override", name, "root", "limits.write=3MB")
    text = _file(daemon, name, "blkio.throttle.write_bps_device", "io.max")
    assert "3000000" in text
    daemon.lxpy("config", "device", "set", name, "root", "limits.write", "4MB")
    assert "4000000" in _file(daemon, name, "blkio.throttle.write_bps_device", "io.max")


def test_no_device_to_limit(daemon: Daemon, launch: Launch) -> None:
    disk = {"type": "disk", "source": "/dev/shm", "path": "/d", "limits.read": "1MB"}
    name = launch()
    with pytest.raises(ApiError, match=r"limits of the disk at /dev/shm cannot be set"):
        daemon.api.patch(f"/1.0/instances/{name}", {"devices": {"d": disk}})
    assert daemon.exec(name, "mountpoint", "-q", "/d", check=False).returncode != 0


def test_priorities(daemon: Daemon, launch: Launch) -> None:
    name = launch(config={"limits.disk.priority": "7"})
    weights = ("blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight")
    assert _file(daemon, name, *weights).endswith("700")
    daemon.lxpy("config", "unset", name, "limits.disk.priority")
    assert _file(daemon, name, *weights).endswith("100")
    if not Path("/sys/fs/cgroup/memory/memory.swappiness").exists():
        return
    daemon.lxpy("config", "set", name, "limits.memory.swap.priority", "2")
    assert _file(daemon, name, "memory.swappiness") == "68"


@pytest.mark.skipif(
    not os.path.exists("/sys/kernel/mm/hugepages/hugepages-2048kB"), reason="needs huge pages"
)
def test_huge_pages(daemon: Daemon, launch: Launch) -> None:
    name = launch(config={"limits.hugepages.2MB": "4MiB"})
    files = ("hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes")
    assert _file(daemon, name, *files) == str(4 * _MIB)
    daemon.lxpy("config", "set", name, "limits.hugepages.2MB", "6MiB")
    assert _file(daemon, name, *files) == str(6 * _MIB)
    with pytest.raises(ApiError, match="no huge pages of 64KB"):
        daemon.api.patch(f"/1.0/instances/{name}", {"config": {"limits.hugepages.64KB": "64KiB"}})


@pytest.mark.parametrize(
    ("key", "value"), [("nvidia.runtime", "true"), ("limits.network.priority", "3")]
)
def test_what_is_refused(daemon: Daemon, launch: Launch, key: str, value: str) -> None:
    name = launch(start=False)
    with pytest.raises(ApiError, match=key):
        daemon.api.patch(f"/1.0/instances/{name}", {"config": {key: value}})


@pytest.fixture
def formatted(work_directory: Path) -> Iterator[str]:
    """A block device with a file system."""
    image = work_directory / "disk.img"
    image.write_bytes(b"")
    os.truncate(image, 16 * _MIB)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    done = subprocess.run(
        ["losetup", "--show", "-f", image], check=True, capture_output=True, text=True
    )
    yield done.stdout.strip()
    subprocess.run(["losetup", "-d", done.stdout.strip()], check=True)
    image.unlink()


def test_a_block_device_of_the_host(daemon: Daemon, launch: Launch, formatted: str) -> None:
    """Its file system is shown, to several, and unmounted with the last."""
    disk = {"type": "disk", "source": formatted, "path": "/mnt/b", "shift": "true"}
    one, two = launch(devices={"b": disk}), launch()
    daemon.exec(one, "sh", "-c", "echo here >/mnt/b/file")
    daemon.api.patch(f"/1.0/instances/{two}", {"devices": {"b": {**disk, "readonly": "true"}}})
    assert daemon.out(two, "cat", "/mnt/b/file") == "here"
    assert daemon.exec(two, "touch", "/mnt/b/x", check=False).returncode != 0
    daemon.restart()
    assert daemon.out(one, "cat", "/mnt/b/file") == "here"
    daemon.lxpy("config", "device", "remove", one, "b")
    assert daemon.exec(one, "test", "-e", "/mnt/b/file", check=False).returncode != 0
    daemon.lxpy("stop", two, "--force")
    assert formatted not in Path("/proc/mounts").read_text()


def test_a_character_device_as_a_disk(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    device = {"type": "disk", "source": "/dev/zero", "path": "/mnt/zero"}
    daemon.api.patch(f"/1.0/instances/{name}", {"devices": {"z": device}})
    for _ in range(2):
        assert daemon.out(name, "sh", "-c", "head -c 5 /mnt/zero | wc -c") == "5"
        daemon.lxpy("restart", name, "--force")
    daemon.lxpy("config", "device", "remove", name, "z")
    assert daemon.exec(name, "test", "-c", "/mnt/zero", check=False).returncode != 0


def test_two_nodes_at_one_path(daemon: Daemon, launch: Launch) -> None:
    """The first is there, until it goes, and the other only when it is started with that alone."""
    name = launch()
    for minor, device in ((5, "a"), (7, "b")):
        given = {"type": "unix-char", "path": "/dev/x", "major": "1", "minor": str(minor)}
        daemon.api.patch(f"/1.0/instances/{name}", {"devices": {device: given}})
    for _ in range(2):
        assert daemon.out(name, "stat", "-c", "%T", "/dev/x") == "5"
        daemon.lxpy("restart", name, "--force")
    daemon.lxpy("config", "device", "remove", name, "b")
    assert daemon.out(name, "stat", "-c", "%T", "/dev/x") == "5"
