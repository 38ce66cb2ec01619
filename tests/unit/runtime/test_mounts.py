"""What is opened of the host for a disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lxpy.runtime.steps import mounts


def test_open_beneath(tmp_path: Path) -> None:
    top, out = tmp_path / "top", tmp_path / "out"
    top.mkdir()
    out.mkdir()
    (top / "file").write_text("x")
    (top / "in").symlink_to("file")
    (top / "absolute").symlink_to(out)
    (top / "relative").symlink_to("../out")
    (top / "magic").symlink_to("/proc/self/root")
    for path in (top, top / "file", top / "in"):
        os.close(mounts.open_beneath(str(path), str(top)))
    for name in ("absolute", "relative", "magic", "../out"):
        with pytest.raises(OSError, match="leads out of") as failure:
            mounts.open_beneath(f"{top}/{name}", str(top))
        assert failure.value.errno == errno.EXDEV
    with pytest.raises(FileNotFoundError):
        mounts.open_beneath(f"{top}/none", str(top))
