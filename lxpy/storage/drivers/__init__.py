"""Storage drivers by name: the kinds of pool this build knows."""

from __future__ import annotations

from collections.abc import Callable

from lxpy.doctor import Host
from lxpy.storage.drivers.base import Driver, Info
from lxpy.storage.drivers.btrfs import BtrfsDriver
from lxpy.storage.drivers.dir import DirDriver
from lxpy.storage.drivers.lvm import LvmDriver
from lxpy.storage.drivers.zfs import ZfsDriver

DRIVERS: dict[str, Callable[[Host], Driver]] = {
    "dir": DirDriver,
    "btrfs": BtrfsDriver,
    "lvm": LvmDriver,
    "zfs": ZfsDriver,
}

__all__ = ["DRIVERS", "BtrfsDriver", "DirDriver", "Driver", "Info", "LvmDriver", "ZfsDriver"]
