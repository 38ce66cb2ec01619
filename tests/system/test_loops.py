"""Files as disks: attached, grown, and gone with their last user."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxpy.storage import loops
from tests.support.processes import wait_until

MIB = 1 << 20


@pytest.fixture
def file(work_directory: Path, commands: Path) -> Iterator[Path]:
    path = work_directory / "disk.img"
    path.touch()
    os.truncate(path, 32 * MIB)
    yield path
    for device in loops.devices(path):
        loops.detach(device)
    path.unlink()


def size_of(device: str) -> int:
    done = subprocess.run(["blockdev", "--getsize64", device], capture_output=True, check=True)
    return int(done.stdout)


def test_a_disk_grows_with_its_file(file: Path) -> None:
    device = loops.attach(file)
    assert loops.devices(file) == [device]
    os.truncate(file, 48 * MIB)
    assert size_of(device) == 32 * MIB
    loops.set_capacity(device)
    assert size_of(device) == 48 * MIB
    loops.detach(device)
    loops.detach(device)
    assert loops.devices(file) == []


def test_a_disk_lives_as_long_as_its_mount(file: Path, work_directory: Path) -> None:
    subprocess.run(["mkfs.ext4", "-q", file], check=True)
    target = work_directory / "mounted"
    target.mkdir()
    with loops.attached(file) as device:
        subprocess.run(["mount", device, target], check=True)
    assert loops.devices(file) == [device]
    subprocess.run(["umount", target], check=True)
    wait_until(lambda: loops.devices(file) == [], 5, "the device is free")
    target.rmdir()


def test_a_disk_that_takes_no_writes(file: Path) -> None:
    with loops.attached(file, read_only=True) as device:
        done = subprocess.run(["blockdev", "--getro", device], capture_output=True, check=True)
        assert done.stdout.strip() == b"1"
    wait_until(lambda: loops.devices(file) == [], 5, "the device is free")
