"""The space that is given up when the disk is full."""

from __future__ import annotations

from pathlib import Path

from lxpy.db.engine import Database
from lxpy.db.reserve import SIZE_BYTES, Reserve


class Disk:
    """A disk with so much free."""

    def __init__(self, free: int) -> None:
        self.free = free

    def __call__(self, _: Path) -> int:
        return self.free


def test_lent_when_full_and_taken_back(tmp_path: Path) -> None:
    disk = Disk(SIZE_BYTES * 100)
    reserve = Reserve(tmp_path / "lxpy.db", disk)
    reserve.keep()
    assert reserve.path.stat().st_blocks * 512 >= SIZE_BYTES and not reserve.missing
    reserve.lend()
    assert reserve.path.exists()
    disk.free = SIZE_BYTES - 1
    reserve.lend()
    assert not reserve.path.exists() and reserve.missing
    assert reserve.keep() is False
    disk.free = SIZE_BYTES * 2
    assert reserve.keep() and reserve.missing and not reserve.path.exists()
    disk.free = SIZE_BYTES * 100
    assert reserve.keep() and reserve.path.exists()


def test_found_again(tmp_path: Path) -> None:
    Reserve(tmp_path / "lxpy.db", Disk(SIZE_BYTES * 100)).keep()
    other = Reserve(tmp_path / "lxpy.db", Disk(0))
    other.keep()
    assert not other.missing


async def test_a_write_makes_it(database: Database, path: Path) -> None:
    async with database.write(frees=True):
        pass
    assert not path.with_name("lxpy.db.reserve").exists()
    async with database.write():
        pass
    assert path.with_name("lxpy.db.reserve").exists()
