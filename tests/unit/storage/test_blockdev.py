"""The block device below a path; on a made-up /sys and /proc."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lxpy.errors import Failed
from lxpy.storage import blockdev


def _sys(root: Path, device: os.stat_result) -> Path:
    """Make a /sys where what a path is on is the partition of a disk 8:16."""
    disk = root / "devices/sdb"
    part = disk / "sdb1"
    part.mkdir(parents=True)
    (disk / "dev").write_text("8:16\n")
    (part / "partition").write_text("1\n")
    links = root / "dev/block"
    links.mkdir(parents=True)
    number = f"{os.major(device.st_dev)}:{os.minor(device.st_dev)}"
    (links / number).symlink_to(part)
    return root


def test_a_partition_is_its_disk(tmp_path: Path) -> None:
    sys = _sys(tmp_path / "sys", os.stat(tmp_path))
    assert blockdev.below("d", str(tmp_path), sys) == (8, 16)


def test_no_device(tmp_path: Path) -> None:
    (tmp_path / "sys").mkdir()
    with pytest.raises(Failed, match='"d": limits of the disk at .* cannot be set'):
        blockdev.below("d", str(tmp_path), tmp_path / "sys")
    with pytest.raises(Failed, match="No such file"):
        blockdev.below("d", str(tmp_path / "none"))
