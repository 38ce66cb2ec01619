"""qcow2: clusters, compressed ones, holes; files that lie are refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from lxpy.errors import Failed
from lxpy.images.qcow2 import convert

BITS = 16
CLUSTER = 1 << BITS


def disk(*, features: int = 0, backing: int = 0, size: int = 8 * CLUSTER) -> bytes:
    """A disk of eight clusters: plain, compressed, zero, and none at all."""
    header = struct.pack(">4sIQIIQIIQ", b"QFI\xfb", 3, backing, 0, BITS, size, 0, 1, CLUSTER)
    header = header.ljust(72, b"\0") + struct.pack(">QQQII", features, 0, 0, 4, 104)
    table = struct.pack(">Q", 2 * CLUSTER | 1 << 63)
    packer = zlib.compressobj(wbits=-12)
    packed = packer.compress(b"C" * CLUSTER) + packer.flush()
    at = 4 * CLUSTER + 100
    sectors = (at + len(packed) - 1) // 512 - at // 512
    entries = [3 * CLUSTER | 1 << 63, 1 << 62 | sectors << (62 - BITS + 8) | at, 1, 0]
    return (
        header.ljust(CLUSTER, b"\0")
        + table.ljust(CLUSTER, b"\0")
        + b"".join(struct.pack(">Q", each) for each in entries).ljust(CLUSTER, b"\0")
        + b"P" * CLUSTER
        + b"\0" * 100
        + packed
    )


def test_convert(tmp_path: Path) -> None:
    source, target = tmp_path / "disk.qcow2", tmp_path / "disk"
    source.write_bytes(disk())
    convert(source, target)
    data = target.read_bytes()
    assert len(data) == 8 * CLUSTER
    assert data.startswith(b"P" * CLUSTER + b"C" * CLUSTER)
    assert not data[2 * CLUSTER :].strip(b"\0")
    assert target.stat().st_blocks * 512 < 4 * CLUSTER


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"no disk" * 100, "no qcow2"),
        (b"QFI\xfb", "damaged"),
        (disk(backing=1), "backing file"),
        (disk(features=8), "another compression"),
        (disk(size=1 << 50), "makes no sense"),
        (disk()[: 2 * CLUSTER + 8], "damaged"),
    ],
)
def test_damaged(tmp_path: Path, data: bytes, problem: str) -> None:
    (tmp_path / "disk.qcow2").write_bytes(data)
    with pytest.raises(Failed, match=problem):
        convert(tmp_path / "disk.qcow2", tmp_path / "disk")
