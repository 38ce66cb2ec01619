"""Files of a rootfs that its container controls: nothing outside is read, made or changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxpy.runtime.fs import Confined


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    root = tmp_path / "rootfs"
    (root / "etc").mkdir(parents=True)
    (tmp_path / "victim").mkdir()
    return root


@pytest.fixture
def root(rootfs: Path) -> Iterator[Confined]:
    confined = Confined.at(str(rootfs))
    yield confined
    confined.close()


@pytest.fixture(autouse=True)
def victim(tmp_path: Path, rootfs: Path) -> Iterator[Path]:
    """A directory beside the rootfs that stays empty whatever a test does."""
    yield tmp_path / "victim"
    assert os.listdir(tmp_path / "victim") == []


@pytest.mark.parametrize("target", ["{}", "../../../..{}", "/proc/self/root{}"])
def test_writing_below_a_link_stays_inside(
    root: Confined, rootfs: Path, victim: Path, target: str
) -> None:
    (rootfs / "link").symlink_to(target.format(victim))
    with pytest.raises(OSError, match="leads nowhere|symbolic links"):
        root.write("/link/file", b"x", 0o644)
    with pytest.raises(OSError, match="leads nowhere|symbolic links"):
        root.directory("/link/directory")


def test_what_a_link_means_to_the_container(root: Confined, rootfs: Path, victim: Path) -> None:
    inside = rootfs / str(victim).lstrip("/")
    inside.mkdir(parents=True)
    (rootfs / "link").symlink_to(victim)
    root.write("/link/file", b"x", 0o644)
    assert (inside / "file").read_bytes() == b"x"


def test_directories_are_made_on_the_way(root: Confined, rootfs: Path) -> None:
    os.close(root.directory("/a/b//./c"))
    assert (rootfs / "a/b/c").is_dir()
    os.close(root.file("/a/x/file"))
    assert (rootfs / "a/x/file").read_bytes() == b""


def test_plain_directories_follow_no_link(root: Confined, rootfs: Path) -> None:
    os.close(root.plain_directory("dev"))
    assert (rootfs / "dev").is_dir()
    (rootfs / "proc").symlink_to("etc")
    with pytest.raises(OSError, match="symbolic links"):
        root.plain_directory("proc")


def test_mode_and_content(root: Confined, rootfs: Path) -> None:
    assert root.write("/etc/new", b"one", 0o600)
    assert (rootfs / "etc/new").stat().st_mode & 0o777 == 0o600
    assert root.write("/etc/new", b"2", 0o644)
    assert (rootfs / "etc/new").read_bytes() == b"2"
    assert (rootfs / "etc/new").stat().st_mode & 0o777 == 0o600
    assert not root.write("/etc/new", b"three", 0o644, create_only=True)
    assert (rootfs / "etc/new").read_bytes() == b"2"


def test_only_regular_files_are_written_and_read(root: Confined, rootfs: Path) -> None:
    os.mkfifo(rootfs / "fifo")
    with pytest.raises(OSError, match="fifo"):
        root.write("/fifo", b"x", 0o644)
    with pytest.raises(OSError, match="not a regular file"):
        root.read("/fifo", 10)


def test_where_links_lead(root: Confined, rootfs: Path) -> None:
    (rootfs / "lib/systemd").mkdir(parents=True)
    (rootfs / "lib/systemd/systemd").write_bytes(b"elf")
    (rootfs / "sbin").mkdir()
    (rootfs / "sbin/init").symlink_to("/lib/systemd/systemd")
    assert root.real_path("/sbin/init") == "/lib/systemd/systemd"
    assert root.read("/sbin/init", 2) == b"el"


@pytest.mark.parametrize("path", ["/", "", "/etc/..", "/."])
def test_paths_that_name_no_file(root: Confined, path: str) -> None:
    with pytest.raises(ValueError, match="names no file"):
        root.parent(path)
