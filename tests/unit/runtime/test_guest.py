"""What a look into a rootfs tells about its init."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxpy.runtime.fs import Confined
from lxpy.runtime.steps.guest import Guest, inspect


def look(rootfs: Path) -> Guest:
    root = Confined.at(str(rootfs))
    try:
        return inspect(root, "/sbin/init")
    finally:
        root.close()


@pytest.mark.parametrize(
    ("content", "version", "legacy"),
    [
        (b"\x7fELF libsystemd-shared-257.9-1~deb13u1.so\0", 257, False),
        (b"\x7fELF libsystemd-shared-232.so\0", 232, False),
        (b"\x7fELF libsystemd-shared-231.so\0", 231, True),
        (b"\x7fELF libc.so.6\0", 0, True),
    ],
)
def test_systemd(tmp_path: Path, content: bytes, version: int, legacy: bool) -> None:
    (tmp_path / "lib/systemd").mkdir(parents=True)
    (tmp_path / "lib/systemd/systemd").write_bytes(content)
    (tmp_path / "sbin").mkdir()
    (tmp_path / "sbin/init").symlink_to("/lib/systemd/systemd")
    guest = look(tmp_path)
    assert (guest.systemd, guest.version) == (True, version)
    assert guest.wants_legacy_cgroups() is legacy


def test_other_inits_and_none(tmp_path: Path) -> None:
    assert not look(tmp_path).systemd
    (tmp_path / "sbin").mkdir()
    (tmp_path / "sbin/init").write_bytes(b"busybox")
    assert not look(tmp_path).systemd
    assert not look(tmp_path).wants_legacy_cgroups()
