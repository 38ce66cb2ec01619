"""A guest's files from outside: where paths lead, what is refused, what an upload leaves."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxpy.errors import BadRequest, Conflict, Failed, LxpyError, NotFound
from lxpy.runtime.guestfiles import GuestFiles, Wish
from lxpy.runtime.guestpaths import explain
from lxpy.runtime.owners import Owners, Unmapped
from lxpy.runtime.upload import Upload


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A guest's root; beside it, what no path may reach."""
    (tmp_path / "secret").write_text("the host's")
    path = tmp_path / "root"
    (path / "etc").mkdir(parents=True)
    (path / "etc/passwd").write_text("root\n")
    return path


@pytest.fixture
def files(root: Path) -> Iterator[GuestFiles]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield GuestFiles(fd)
    os.close(fd)


def put(files: GuestFiles, path: str, content: bytes, wish: Wish | None = None) -> None:
    upload = Upload(files, path, wish or Wish())
    try:
        upload.write(content)
        upload.commit()
    finally:
        upload.close()


def content(files: GuestFiles, path: str) -> bytes:
    _, fd = files.read(path)
    try:
        return os.read(fd, 1 << 20)
    finally:
        os.close(fd)


def test_look(files: GuestFiles, root: Path) -> None:
    (root / "etc/passwd").chmod(0o640)
    entry = files.look("/etc/passwd")
    assert (entry.type, entry.mode, entry.size) == ("file", 0o640, 5)
    assert entry.uid == os.geteuid()
    assert files.look("/").type == files.look("/etc/").type == "directory"
    (root / "pipe").touch()
    (root / "pipe").unlink()
    os.mkfifo(root / "pipe")
    assert files.look("/pipe").type == ""
    with pytest.raises(NotFound, match="Not Found"):
        files.look("/etc/nothing")
    with pytest.raises(NotFound):
        files.look("/etc/passwd/below")


def test_links_stay_inside(files: GuestFiles, root: Path) -> None:
    (root / "out").symlink_to("../../secret")
    (root / "far").symlink_to("/")
    (root / "up").symlink_to("../..")
    assert files.look("/out").type == "symlink"
    assert files.link("/out") == "/secret"
    (root / "etc/rel").symlink_to("../run/x")
    assert files.link("/etc/rel") == "/run/x"
    assert set(files.names("/far/up/etc")) == {"passwd", "rel"}
    with pytest.raises(NotFound):
        content(files, "/far/secret")
    put(files, "/out", b"guest's")
    assert (root / "secret").read_bytes() == b"guest's"
    assert (root.parent / "secret").read_text() == "the host's"


def test_a_link_is_not_read_through(files: GuestFiles, root: Path) -> None:
    (root / "link").symlink_to("etc/passwd")
    with pytest.raises(BadRequest):
        files.read("/link")


def test_a_new_file(files: GuestFiles, root: Path) -> None:
    put(files, "/etc/new", b"text")
    assert (root / "etc/new").read_bytes() == b"text"
    assert stat.S_IMODE((root / "etc/new").stat().st_mode) == 0o644
    put(files, "/etc/secret", b"text", Wish(mode=0o4700))
    assert stat.S_IMODE((root / "etc/secret").stat().st_mode) == 0o4700
    with pytest.raises(NotFound):
        put(files, "/missing/new", b"")
    with pytest.raises(BadRequest, match="names no file"):
        put(files, "/", b"")
    with pytest.raises(BadRequest, match="not a regular file"):
        put(files, "/etc", b"")


def test_an_old_file_keeps_what_it_has(files: GuestFiles, root: Path) -> None:
    (root / "etc/passwd").chmod(0o600)
    os.setxattr(root / "etc/passwd", "user.note", b"x")
    put(files, "/etc/passwd", b"new", Wish(mode=0o777))
    assert stat.S_IMODE((root / "etc/passwd").stat().st_mode) == 0o600
    assert os.getxattr(root / "etc/passwd", "user.note") == b"x"
    assert (root / "etc/passwd").read_bytes() == b"new"


def test_the_other_name_of_a_file(files: GuestFiles, root: Path) -> None:
    os.link(root / "etc/passwd", root / "other")
    put(files, "/etc/passwd", b"n")
    assert (root / "other").read_bytes() == b"n"
    assert (root / "other").samefile(root / "etc/passwd")


def test_a_broken_upload_leaves_nothing(files: GuestFiles, root: Path) -> None:
    before = sorted(os.listdir(root / "etc"))
    for path in ("/etc/passwd", "/etc/new"):
        upload = Upload(files, path, Wish())
        upload.write(b"half")
        upload.close()
    assert sorted(os.listdir(root / "etc")) == before
    assert (root / "etc/passwd").read_text() == "root\n"


def test_a_file_that_appears_meanwhile(files: GuestFiles, root: Path) -> None:
    upload = Upload(files, "/etc/new", Wish(mode=0o600))
    upload.write(b"uploaded")
    (root / "etc/new").write_text("the guest's")
    (root / "etc/new").chmod(0o644)
    upload.commit()
    upload.close()
    assert (root / "etc/new").read_text() == "uploaded"
    assert sorted(os.listdir(root / "etc")) == ["new", "passwd"]


def test_append(files: GuestFiles, root: Path) -> None:
    fd = files.append("/etc/passwd")
    files.write_to(fd, b"more\n", "/etc/passwd")
    os.close(fd)
    assert (root / "etc/passwd").read_text() == "root\nmore\n"
    with pytest.raises(NotFound):
        files.append("/etc/nothing")


def test_directories_and_links(files: GuestFiles, root: Path) -> None:
    files.make_directory("/etc/d", Wish())
    assert stat.S_IMODE((root / "etc/d").stat().st_mode) == 0o750
    files.make_directory("/etc/d", Wish(mode=0o700))
    assert stat.S_IMODE((root / "etc/d").stat().st_mode) == 0o750
    files.make_directory("/", Wish())
    with pytest.raises(Conflict, match="no directory"):
        files.make_directory("/etc/passwd", Wish())
    files.make_link("/etc/l", "to", Wish())
    files.make_link("/etc/l", "to", Wish())
    assert os.readlink(root / "etc/l") == "to"
    with pytest.raises(Conflict, match='a link to "to"'):
        files.make_link("/etc/l", "elsewhere", Wish())


def test_remove(files: GuestFiles, root: Path) -> None:
    with pytest.raises(Failed, match="directory not empty"):
        files.remove("/etc")
    (root / "link").symlink_to("/etc")
    for path in ("/link", "/etc/passwd", "/etc"):
        files.remove(path)
    assert not os.listdir(root)
    with pytest.raises(NotFound):
        files.remove("/etc")
    with pytest.raises(BadRequest):
        files.remove("/")


def test_special_files_have_no_content(files: GuestFiles, root: Path) -> None:
    os.mkfifo(root / "pipe")
    for attempt in (files.read, files.append):
        with pytest.raises(BadRequest, match="not a regular file"):
            attempt("/pipe")
    with pytest.raises(BadRequest, match="not a regular file"):
        Upload(files, "/pipe", Wish())


def test_the_kernels_own_files_are_refused() -> None:
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        files = GuestFiles(fd)
        assert files.look("/proc/sys").type == "directory"
        with pytest.raises(BadRequest, match="belongs to the kernel"):
            files.read("/proc/version")
        with pytest.raises(BadRequest, match="belongs to the kernel"):
            Upload(files, "/proc/sys/kernel/core_pattern", Wish())
    finally:
        os.close(fd)


def test_owners() -> None:
    owners = Owners(((0, 1_000_000, 65536),), ((0, 1_000_000, 1000), (1000, 50, 1)))
    assert owners.root == (1_000_000, 1_000_000)
    assert owners.inside(1_000_005, 50) == (5, 1000)
    assert owners.inside(0, 0) == (65534, 65534)
    assert owners.outside(7, 1000) == (1_000_007, 50)
    with pytest.raises(Unmapped, match="no user id 70000"):
        owners.outside(70000, 0)
    assert Owners().inside(5, 6) == Owners().outside(5, 6) == (5, 6)
    assert Owners.of_process(os.getpid()).inside(os.geteuid(), os.getegid()) is not None


def test_an_owner_the_guest_does_not_have(root: Path) -> None:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    span = ((0, 1_000_000, 10),)
    try:
        with pytest.raises(BadRequest, match="no user id 10"):
            Upload(GuestFiles(fd, Owners(span, span)), "/etc/new", Wish(uid=10))
    finally:
        os.close(fd)
    assert os.listdir(root / "etc") == ["passwd"]


@pytest.mark.parametrize("number", [1, 5, 12, 16, 22, 28, 30, 36, 39, 122])
def test_errors_name_the_path(number: int) -> None:
    error = explain(OSError(number, "x"), "/a/b")
    assert isinstance(error, LxpyError) and re.search("/a/b", str(error))
