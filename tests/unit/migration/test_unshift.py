"""Owners and capabilities of files that LXD had shifted on its disk."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from lxpy.backups import programs
from lxpy.migration import unshift

BASE = 1_000_000
SPANS = [(BASE, 0, 65536)]


def test_ids() -> None:
    assert unshift.inside(SPANS, BASE) == 0
    assert unshift.inside(SPANS, BASE + 65535) == 65535
    assert unshift.inside(SPANS, 7) == 7


def test_capabilities_lose_their_root() -> None:
    plain = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
    rooted = struct.pack("<6I", 0x03000001, 1 << 13, 0, 0, 0, BASE)
    assert unshift.without_root(rooted) == plain
    assert unshift.without_root(plain) == plain


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_tree(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("d/file", "d/setuid"):
        (tmp_path / name).write_text("x")
        os.chown(tmp_path / name, BASE + 1000, BASE + 1001)
    (tmp_path / "d/setuid").chmod(0o6755)
    (tmp_path / "link").symlink_to("d")
    os.chown(tmp_path / "link", BASE, BASE, follow_symlinks=False)
    os.chown(tmp_path / "d", BASE, BASE)
    top = os.open(tmp_path, os.O_RDONLY)
    try:
        command = (*programs.ours("lxpy.migration.unshift"), str(top), f"1:1:{BASE}:0:65536")
        subprocess.run(command, check=True, pass_fds=(top,))
    finally:
        os.close(top)
    owners = {
        name: (status.st_uid, status.st_gid)
        for name in ("d", "link", "d/file", "d/setuid")
        for status in [os.lstat(tmp_path / name)]
    }
    assert owners["d"] == owners["link"] == (0, 0)
    assert owners["d/file"] == owners["d/setuid"] == (1000, 1001)
    assert os.lstat(tmp_path / "d/setuid").st_mode & 0o7777 == 0o6755
