"""A tree of files with everything that is easily lost, and what tells two trees apart."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from itertools import zip_longest
from pathlib import Path

MIB = 1 << 20
# Of overlayfs, of our drivers, and of xfs, which shows lists of access by two names.
_OF_THE_DISK = ("trusted.overlay.", "trusted.lxpy.", "trusted.SGI_ACL")
#: of all files of an image: wherever it is unpacked they are the same
IMAGE_TIME_NS = 1_000_000_000_123_456_789
#: cap_net_raw=ep, as the kernel stores it (struct vfs_cap_data, revision 2)
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
#: user::rw-,user:1000:r--,group::r--,mask::r--,other::r-- (struct posix_acl_xattr_header)
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permissions, name)
    for tag, permissions, name in (
        (1, 6, 0xFFFFFFFF), (2, 4, 1000), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF),
        (32, 4, 0xFFFFFFFF),
    )
)  # fmt: skip


def fill_image(root: Path) -> None:
    """Write what `change` changes."""
    for name in ("kept", "gone", "renamed/inner", "replaced"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_text(f"{name}\n")
    (root / "one").write_text("image\n")
    (root / "two").hardlink_to(root / "one")
    for top, _, others in os.walk(root):
        for path in [top, *(os.path.join(top, each) for each in others)]:
            os.utime(path, ns=(IMAGE_TIME_NS, IMAGE_TIME_NS))


def change(root: Path) -> None:
    """Change the files of an image in every way a guest may."""
    (root / "gone/file").unlink()
    (root / "gone").rmdir()
    (root / "renamed").rename(root / "moved")
    (root / "replaced/file").unlink()
    (root / "replaced").rmdir()
    (root / "replaced").mkdir()
    (root / "replaced/new").write_text("new\n")
    (root / "two").write_text("changed through one of two names\n")
    (root / "three").hardlink_to(root / "one")
    (root / "kept/link").symlink_to("/nowhere")
    os.mkfifo(root / "kept/pipe", 0o640)
    os.mknod(root / "kept/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    setuid = root / "kept/setuid"
    setuid.write_bytes(b"#!/bin/sh\n")
    os.chown(setuid, 1000, 1001)
    setuid.chmod(0o4755)
    os.setxattr(setuid, "user.note", b"kept")
    capable = root / "kept/capable"
    capable.write_bytes(b"\x7fELF")
    os.setxattr(capable, "security.capability", CAPABILITY)
    shared = root / "kept/shared"
    shared.write_text("acl\n")
    os.setxattr(shared, "system.posix_acl_access", ACL)
    with (root / "kept/sparse").open("wb") as file:
        file.seek(64 * MIB)
        file.write(b"end")
    (root / os.fsdecode(b"kept/\xff\xfe name\n")).write_text("odd\n")
    (root / ("kept/" + "x" * 255)).touch()
    os.utime(root / "kept/file", ns=(1_000_000_007, 1_234_567_891))
    os.utime(root / "kept", ns=(1_000_000_009, 1_234_567_893))


def digest(root: Path) -> dict[str, tuple[object, ...]]:
    """Return what a tree holds, by path: two trees are the same if these are equal."""
    links: dict[tuple[int, int], str] = {}
    found: dict[str, tuple[object, ...]] = {}
    for top, names, others in os.walk(f"{root}/."):  # a root that is a link in /proc is followed
        names.sort()
        for path in sorted([top, *(os.path.join(top, each) for each in others)]):
            status = os.lstat(path)
            relative = os.path.relpath(path, root)
            first = links.setdefault((status.st_dev, status.st_ino), relative)
            found[relative] = (*_described(path, status), first)
        for name in [each for each in names if os.path.islink(os.path.join(top, each))]:
            path = os.path.join(top, name)
            found[os.path.relpath(path, root)] = _described(path, os.lstat(path))
    mode, *others_of_top = found["."]
    del others_of_top[5]  # the time, which it takes to mount an overlay
    found["."] = (mode, *others_of_top)
    return found


def _described(path: str, status: os.stat_result) -> tuple[object, ...]:
    attributes = tuple(
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in sorted(os.listxattr(path, follow_symlinks=False))
        if not name.startswith(_OF_THE_DISK)
    )
    content = ""
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    is_sparse = size > MIB and status.st_blocks * 512 < size // 2
    owner = (status.st_mode, status.st_uid, status.st_gid, status.st_rdev)
    return (*owner, size, is_sparse, status.st_mtime_ns, attributes, content)


def differences(
    one: dict[str, tuple[object, ...]], other: dict[str, tuple[object, ...]]
) -> list[str]:
    """Return what tells two digests apart: path, and the values that differ."""
    found = []
    for path in sorted(one.keys() | other.keys()):
        mine, theirs = one.get(path, ()), other.get(path, ())
        unlike = [pair for pair in zip_longest(mine, theirs) if pair[0] != pair[1]]
        if unlike:
            found.append(f"{path}: {unlike}")
    return found
