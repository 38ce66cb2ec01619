"""Opening below a directory that somebody else controls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxpy.kernel.files import CONFINED, NO_SYMLINKS, open_within


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    inside = tmp_path / "root"
    (inside / "etc").mkdir(parents=True)
    (inside / "etc/passwd").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    fd = os.open(inside, os.O_PATH)
    yield fd
    os.close(fd)


def read(root: int, path: str) -> str:
    fd = open_within(root, path, os.O_RDONLY)
    try:
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


def test_absolute_and_upward_paths_stay_inside(root: int, tmp_path: Path) -> None:
    assert read(root, "/etc/passwd") == "inside"
    assert read(root, "../../../etc/passwd") == "inside"
    with pytest.raises(FileNotFoundError):
        read(root, f"{tmp_path}/secret")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd"])
def test_links_stay_inside(root: int, tmp_path: Path, target: str) -> None:
    (tmp_path / "root/link").symlink_to(target)
    assert read(root, "link") == "inside"


def test_magic_links_lead_nowhere(root: int, tmp_path: Path) -> None:
    proc = os.open("/proc", os.O_PATH)
    try:
        with pytest.raises(OSError, match=r"openat2\(self/root/etc\)"):
            open_within(proc, "self/root/etc", os.O_PATH)
    finally:
        os.close(proc)


def test_links_may_be_refused(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/link").symlink_to("etc")
    with pytest.raises(OSError, match="symbolic links"):
        open_within(root, "link", os.O_PATH, resolve=CONFINED | NO_SYMLINKS)


def test_descriptors_are_not_inherited(root: int) -> None:
    fd = open_within(root, "etc", os.O_PATH)
    assert not os.get_inheritable(fd)
    os.close(fd)
