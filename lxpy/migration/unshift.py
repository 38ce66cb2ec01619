"""A program: give the files of a tree the owners that the guest knows, in place.

    unshift.py DESCRIPTOR UID:GID:HOST:INSIDE:SIZE...

UID and GID are 0 or 1: whose ids the span is. LXD keeps files with the host's ids where the file
system cannot be mounted with others. What a change of owner takes away is given back: the set-id
bits, and capabilities, which on such disks name the root they are for. Python's own library only.
"""

from __future__ import annotations

import os
import stat
import struct
import sys

Span = tuple[int, int, int]
_CAPABILITY = "security.capability"
_WITH_ROOT = 0x03000000  # VFS_CAP_REVISION_3
_PLAIN = 0x02000000
_MASK = 0xFF000000


def main() -> None:
    """Change everything below the descriptor."""
    top = int(sys.argv[1])
    spans = [tuple(map(int, each.split(":"))) for each in sys.argv[2:]]
    uids = [(host, inside, size) for uid, _, host, inside, size in spans if uid]
    gids = [(host, inside, size) for _, gid, host, inside, size in spans if gid]
    for _, directories, files, descriptor in os.fwalk(".", follow_symlinks=False, dir_fd=top):
        _change(".", descriptor, uids, gids)
        for name in files:
            _change(name, descriptor, uids, gids)
        for name in directories:
            if stat.S_ISLNK(os.lstat(name, dir_fd=descriptor).st_mode):
                _change(name, descriptor, uids, gids)


def _change(name: str, directory: int, uids: list[Span], gids: list[Span]) -> None:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    uid, gid = inside(uids, status.st_uid), inside(gids, status.st_gid)
    path = f"/proc/self/fd/{directory}/{name}"
    kept = _capability(path) if stat.S_ISREG(status.st_mode) else b""
    if (uid, gid) != (status.st_uid, status.st_gid):
        os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
        if status.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(status.st_mode):
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=directory)
    if kept:
        os.setxattr(path, _CAPABILITY, without_root(kept), follow_symlinks=False)


def inside(spans: list[Span], number: int) -> int:
    """Return what the guest calls an id of the host; one that is not its own stays."""
    for host, guest, size in spans:
        if host <= number < host + size:
            return number - host + guest
    return number


def without_root(capability: bytes) -> bytes:
    """Return a file's capabilities without the host's id of the root they are for.

    Source: struct vfs_ns_cap_data.
    """
    (magic,) = struct.unpack_from("<I", capability)
    if magic & _MASK != _WITH_ROOT:
        return capability
    return struct.pack("<I", magic & ~_MASK | _PLAIN) + capability[4:20]


def _capability(path: str) -> bytes:
    try:
        return os.getxattr(path, _CAPABILITY, follow_symlinks=False)
    except OSError:
        return b""


if __name__ == "__main__":
    main()
