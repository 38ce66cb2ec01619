"""A QEMU disk image (qcow2) becomes a plain one, with holes where it has nothing.

Source: QEMU documentation, "Qcow2 Image File Format". No backing files, no encryption, no
snapshots, zlib alone: what a freshly made disk has.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lxpy.errors import Failed

_HEADER = struct.Struct(">4sIQIIQIIQ")
_OFFSET = 0x00FFFFFFFFFFFE00
_COMPRESSED = 1 << 62
_ZERO = 1
_MAX_BYTES = 64 << 30


@dataclass(frozen=True, slots=True)
class _Header:
    cluster_bits: int
    size: int
    tables: int
    tables_at: int

    @property
    def cluster(self) -> int:
        """Bytes in a cluster."""
        return 1 << self.cluster_bits


def convert(source: Path, target: Path) -> None:
    """Write the disk in `source` to the new file `target` (blocking).

    Raises Failed for a file that is damaged or of a kind that is not supported.
    """
    try:
        with source.open("rb") as disk, target.open("xb") as plain:
            header = _read_header(disk)
            plain.truncate(header.size)
            _copy(disk, plain, header)
    except (struct.error, zlib.error, OverflowError) as error:
        raise Failed(f"Disk image {source.name} is damaged: {error}") from error


def _read_header(disk: BinaryIO) -> _Header:
    data = disk.read(112)
    magic, version, backing, _, bits, size, crypt, tables, at = _HEADER.unpack_from(data)
    if magic != b"QFI\xfb" or version not in (2, 3):
        raise Failed("The disk image is no qcow2 file")
    features = struct.unpack_from(">Q", data, 72)[0] if version == 3 else 0
    if backing or crypt or features & ~1:  # bit 0 says only that it was not closed
        raise Failed("The disk image has a backing file, encryption or another compression")
    if (
        not 9 <= bits <= 21
        or not 0 < size <= _MAX_BYTES
        or tables > size >> (2 * bits - 3) << 1 | 1
    ):
        raise Failed("The disk image is damaged: its header makes no sense")
    return _Header(bits, size, tables, at)


def _copy(disk: BinaryIO, plain: BinaryIO, header: _Header) -> None:
    entries = header.cluster // 8
    for number, table in enumerate(_numbers(disk, header.tables_at, header.tables)):
        if not table & _OFFSET:
            continue
        for index, entry in enumerate(_numbers(disk, table & _OFFSET, entries)):
            position = (number * entries + index) * header.cluster
            if position >= header.size:
                return
            data = _cluster(disk, entry, header)
            if data.strip(b"\0"):
                os.pwrite(plain.fileno(), data[: header.size - position], position)


def _numbers(disk: BinaryIO, offset: int, count: int) -> tuple[int, ...]:
    disk.seek(offset)
    return struct.unpack(f">{count}Q", disk.read(count * 8))


def _cluster(disk: BinaryIO, entry: int, header: _Header) -> bytes:
    """Return a cluster's bytes, b"" for one that is empty."""
    if entry & _COMPRESSED:
        bits = 62 - (header.cluster_bits - 8)
        offset = entry & ((1 << bits) - 1)
        sectors = (entry >> bits & ((1 << (62 - bits)) - 1)) + 1
        disk.seek(offset)
        packed = disk.read(sectors * 512 - (offset & 511))
        return zlib.decompressobj(-12).decompress(packed, header.cluster)
    if entry & _ZERO or not entry & _OFFSET:
        return b""
    disk.seek(entry & _OFFSET)
    return disk.read(header.cluster)
