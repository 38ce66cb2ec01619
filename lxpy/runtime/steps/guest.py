"""What the rootfs holds: which init, and how old. Decides /run and the view of cgroups."""

from __future__ import annotations

import os

from lxpy.runtime.fs import Confined

_MARK = b"libsystemd-shared-"
_OLDEST_WITH_CGROUP2 = 232


class Guest:
    """What a look into the rootfs told."""

    __slots__ = ("systemd", "version")

    def __init__(self, *, systemd: bool, version: int) -> None:
        self.systemd = systemd
        self.version = version

    def wants_legacy_cgroups(self) -> bool:
        """Tell whether init knows only the v1 `name=systemd` hierarchy (CentOS 7: 219)."""
        return self.systemd and self.version < _OLDEST_WITH_CGROUP2


def inspect(root: Confined, init: str) -> Guest:
    """Look at the program that will be PID 1.

    A systemd that links no libsystemd-shared-NNN is older than 231, where that library came.
    """
    try:
        path = root.real_path(init)
        if not path.endswith("/systemd"):
            return Guest(systemd=False, version=0)
        text = root.read(path, 4 << 20)
    except OSError:
        return Guest(systemd=False, version=0)
    start = text.find(_MARK)
    if start < 0:
        return Guest(systemd=True, version=0)
    digits = bytearray()
    for byte in text[start + len(_MARK) : start + len(_MARK) + 4]:
        if not 48 <= byte <= 57:
            break
        digits.append(byte)
    return Guest(systemd=True, version=int(digits or b"0"))


def exists(root: Confined, path: str) -> bool:
    """Tell whether `path` leads to something inside the rootfs."""
    try:
        os.close(root.open(path, os.O_PATH))
    except OSError:
        return False
    return True
