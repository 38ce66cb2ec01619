"""Btrfs by ioctl, as far as it goes without a btrfs."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from lxpy.kernel import btrfs


def test_arguments_have_the_kernel_s_size() -> None:
    """A request's number holds the size of its structure."""
    assert btrfs._VOLUME_ARGS.size == btrfs._SNAPSHOT >> 16 & 0x3FFF == 4096
    assert btrfs._SEARCH_KEY.size == 104 and btrfs._ITEM.size == 32
    assert struct.calcsize("=QQ4080x") == btrfs._INO_LOOKUP >> 16 & 0x3FFF == 4096
    assert struct.calcsize("=6Q") == btrfs._LIMIT >> 16 & 0x3FFF
    assert btrfs._FS_INFO >> 16 & 0x3FFF == 1024


def test_errors_name_call_and_subject(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(OSError, match=r"btrfs\(make quota"):
        btrfs.make_group(file.fileno(), 1 << btrfs.LEVEL_SHIFT | 256)
