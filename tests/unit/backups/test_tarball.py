"""What the packing program writes, read by GNU tar and by Python."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from lxpy.backups.changes import compare
from lxpy.backups.headers import Header, acl_text
from lxpy.backups.pack import Directory, Job, Packing, Text
from lxpy.backups.tarball import Tarball
from lxpy.images.attributes import acl


def pack(path: Path, job: Job) -> bytes:
    here = os.getcwd()
    with path.open("wb") as file:
        try:
            Packing(Tarball(file.fileno()), job).run()
        finally:
            os.chdir(here)
    return path.read_bytes()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with a bit of everything that a user may make."""
    top = tmp_path / "tree"
    (top / "folder/inner").mkdir(parents=True)
    (top / "folder/file").write_text("content\n")
    os.utime(top / "folder/file", ns=(1, 1_500_000_000_123_456_789))
    (top / "folder/second").hardlink_to(top / "folder/file")
    (top / "link").symlink_to("/etc/passwd")
    os.mkfifo(top / "pipe")
    (top / ("n" * 200)).write_bytes(b"long")
    os.close(os.open(os.fsencode(top) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY))
    with (top / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"middle")
        file.truncate(8 << 20)
    with (top / "hole").open("wb") as file:
        file.truncate(1 << 20)
    return top


def whole(top: Path, checksums: bool = True) -> Job:
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    return Job([Text("first", "words"), Directory("top", descriptor)], 7 * 10**9, checksums)


def test_gnu_tar_unpacks_what_was_packed(tree: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    pack(archive, whole(tree))
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", out, "--numeric-owner"], check=True)
    assert (out / "first").read_text() == "words"
    for name in ("folder/file", "link", "sparse", "hole", "pipe", "n" * 200):
        was, now = (tree / name).lstat(), (out / "top" / name).lstat()
        assert (was.st_mode, was.st_size) == (now.st_mode, now.st_size), name
        assert was.st_mtime_ns == now.st_mtime_ns, name
    assert (out / "top/folder/second").stat().st_ino == (out / "top/folder/file").stat().st_ino
    assert (out / "top/sparse").read_bytes() == (tree / "sparse").read_bytes()
    assert (out / "top/sparse").stat().st_blocks * 512 < 1 << 20
    assert b"\xff\xfe" in os.listdir(os.fsencode(out) + b"/top")


def test_the_digest_is_of_all_that_comes_before_it(tree: Path, tmp_path: Path) -> None:
    data = pack(tmp_path / "a.tar", whole(tree))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        last = archive.getmembers()[-1]
        content = archive.extractfile(last)
        assert content is not None
        kind, digest, size = content.read().decode().split()
    assert (last.name, kind) == ("backup/checksums", "sha256")
    assert int(size) == last.offset
    assert digest == hashlib.sha256(data[: last.offset]).hexdigest()


def test_only_what_changed(tree: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    subprocess.run(["cp", "-a", tree, new], check=True)
    old_fd, new_fd = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (new, new))
    here = os.getcwd()
    try:
        assert not compare(old_fd, new_fd).changed
        older = tmp_path / "older"
        subprocess.run(["cp", "-al", new, older], check=True)  # the same inodes: the same times
        (new / "folder/file").unlink()
        (new / "added").mkdir()
        (new / "added/one").write_text("1")
        (new / "link").unlink()
        (new / "link").mkdir()
        (new / "pipe").unlink()
        found = compare(os.open(older, os.O_RDONLY), new_fd)
    finally:
        os.chdir(here)
    assert sorted(found.gone) == [b"folder/file", b"link", b"pipe"]
    assert {b"added", b"added/one", b"link", b""} <= set(found.changed)
    assert b"sparse" not in found.changed


def test_a_copy_is_no_change(tree: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    subprocess.run(["cp", "-a", tree, new], check=True)
    old_fd, new_fd = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (tree, new))
    here = os.getcwd()
    try:
        names = {b"folder", b"folder/file", b"folder/second", b"pipe", b""}  # links, no content
        assert set(compare(old_fd, new_fd).changed) <= names
        stamp = (new / "hole").stat()
        with (new / "hole").open("r+b") as file:
            file.write(b"x")
        os.utime(new / "hole", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert b"hole" in compare(old_fd, new_fd).changed
    finally:
        os.chdir(here)
        os.close(old_fd)
        os.close(new_fd)


@pytest.mark.parametrize("size", [0, 100, 990, 991, 9990, 99_990])
def test_pax_records_count_themselves(size: int) -> None:
    data = Header(b"x" * 120, b"0", xattrs={"user.key": b"\0" * size}).encode()
    with tarfile.open(fileobj=io.BytesIO(data + b"\0" * 1024)) as archive:
        (member,) = archive.getmembers()
    assert member.name == "x" * 120
    assert member.pax_headers["SCHILY.xattr.user.key"] == "\0" * size


def test_extreme_numbers() -> None:
    header = Header(b"x", b"5", uid=3_000_000, gid=(1 << 32) - 2, mtime_ns=-1_500_000_000)
    with tarfile.open(fileobj=io.BytesIO(header.encode() + b"\0" * 1024)) as archive:
        (member,) = archive.getmembers()
    assert (member.uid, member.gid, member.mtime) == (3_000_000, (1 << 32) - 2, -1.5)


def test_access_lists_come_back_as_they_were() -> None:
    value = acl("user::rwx,user:1000:r--,group::r-x,group:5:-w-,mask::rwx,other::---")
    assert value is not None
    text = acl_text(value)
    assert text is not None
    assert acl(text.decode()) == value
    assert acl_text(b"nonsense") is None
