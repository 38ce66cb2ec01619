"""Btrfs by ioctl: subvolumes, snapshots, quota groups. Most of it needs root.

A process of the btrfs program takes longer than what it asks for. `fd` is a descriptor of any
directory of the file system unless it is said which one. Source: linux/btrfs.h,
linux/btrfs_tree.h, btrfs-ioctl(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import uuid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: number of the top directory of every subvolume
TOP = 256
LEVEL_SHIFT = 48

_CREATE, _SNAPSHOT, _DESTROY = 0x50009418, 0x50009417, 0x5000943F
_GET_FLAGS, _SET_FLAGS = 0x80089419, 0x4008941A
_TREE_SEARCH, _INO_LOOKUP, _FS_INFO = 0xD0009411, 0xD0009412, 0x8400941F
_START_SYNC, _WAIT_SYNC = 0x80089418, 0x40089416
_QUOTA_CTL = 0xC0109428
_ASSIGN, _GROUP, _LIMIT = 0x40189429, 0x4010942A, 0x8030942B
_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS

_READ_ONLY = 1 << 1
_BY_ID = 1 << 4
_QUOTA_ENABLE, _QUOTA_ENABLE_SIMPLE = 1, 4
_LIMIT_REFERENCED = 1
_NO_LIMIT = (1 << 64) - 1
_NOCOW = 0x00800000

_ROOT_TREE, _QUOTA_TREE = 1, 8
_ROOT_ITEM, _ROOT_REF, _GROUP_RELATION = 132, 156, 246

_VOLUME_ARGS = struct.Struct("=qQQ32s4040s")  # struct btrfs_ioctl_vol_args_v2
_SEARCH_KEY = struct.Struct("=7Q4I4Q")
_ITEM = struct.Struct("=3Q2I")
_ROOT_REF_ITEM = struct.Struct("=QQH")
_SEARCH_BYTES = 4096


def create(parent: int, name: str) -> None:
    """Make a subvolume in the directory `parent`; it lasts from the next commit on."""
    _ioctl(parent, "create", name, _CREATE, _VOLUME_ARGS.pack(0, 0, 0, b"", _name(name)))


def snapshot(parent: int, name: str, source: int, *, read_only: bool = False) -> None:
    """Make a snapshot of the subvolume `source`, committed when this returns."""
    args = _VOLUME_ARGS.pack(source, 0, _READ_ONLY if read_only else 0, b"", _name(name))
    _ioctl(parent, "snapshot", name, _SNAPSHOT, args)


def destroy(fd: int, subvolume: int) -> None:
    """Remove a subvolume, which has no others in it, by its number."""
    number = subvolume.to_bytes(8, "little")
    args = _VOLUME_ARGS.pack(0, 0, _BY_ID, b"", number)
    _ioctl(fd, "destroy", f"subvolume {subvolume}", _DESTROY, args)


def is_subvolume(fd: int) -> bool:
    """Tell whether the directory `fd`, on btrfs, is the top of a subvolume."""
    return os.fstat(fd).st_ino == TOP


def subvolume_id(fd: int) -> int:
    """Return the number of the subvolume that the directory `fd` is in."""
    found = _ioctl(fd, "number of", "subvolume", _INO_LOOKUP, struct.pack("=QQ4080x", 0, TOP))
    return int.from_bytes(found[:8], "little")


def set_read_only(fd: int, *, read_only: bool) -> None:
    """Let the subvolume `fd` take no writes, or let it take them again."""
    raw = _ioctl(fd, "flags of", "subvolume", _GET_FLAGS, bytes(8))
    flags = int.from_bytes(raw, "little") & ~_READ_ONLY
    flags |= _READ_ONLY if read_only else 0
    _ioctl(fd, "flags of", "subvolume", _SET_FLAGS, flags.to_bytes(8, "little"))


def children(fd: int, subvolume: int) -> list[tuple[int, str]]:
    """Return number and path of the subvolumes directly in one; paths are relative to it."""
    found = []
    for number, item in _search(fd, _ROOT_TREE, subvolume, _ROOT_REF):
        directory, _, length = _ROOT_REF_ITEM.unpack_from(item)
        name = os.fsdecode(item[_ROOT_REF_ITEM.size :][:length])
        found.append((number, _path(fd, subvolume, directory) + name))
    return found


def exists(fd: int, subvolume: int) -> bool:
    """Tell whether there is a subvolume of that number."""
    return any(_search(fd, _ROOT_TREE, subvolume, _ROOT_ITEM))


def commit(fd: int) -> None:
    """Have all changes of metadata so far on the disk (data being written is not waited for)."""
    transaction = _ioctl(fd, "commit", "btrfs", _START_SYNC, bytes(8))
    _ioctl(fd, "commit", "btrfs", _WAIT_SYNC, bytes(transaction))


def filesystem_id(fd: int) -> str:
    """Return the UUID of the file system. Raises OSError, ENOTTY where it is no btrfs."""
    return str(uuid.UUID(bytes=bytes(_ioctl(fd, "id of", "btrfs", _FS_INFO, bytes(1024))[16:32])))


def set_no_copy_on_write(fd: int) -> None:
    """Have an empty file, or what is made in a directory, overwritten in place."""
    raw = _ioctl(fd, "attributes of", "file", _GET_ATTRIBUTES, bytes(8))
    flags = int.from_bytes(raw, "little") | _NOCOW
    _ioctl(fd, "attributes of", "file", _SET_ATTRIBUTES, flags.to_bytes(8, "little"))


def enable_quotas(fd: int, *, simple: bool) -> None:
    """Begin to count what subvolumes take: what they refer to, or, simple, what they wrote."""
    command = _QUOTA_ENABLE_SIMPLE if simple else _QUOTA_ENABLE
    _ioctl(fd, "enable", "quotas", _QUOTA_CTL, struct.pack("=2Q", command, 0))


def make_group(fd: int, group: int) -> None:
    """Make a quota group. Raises FileExistsError."""
    _ioctl(fd, "make", _group_name(group), _GROUP, struct.pack("=2Q", 1, group))


def remove_group(fd: int, group: int) -> None:
    """Remove a quota group. Raises OSError, EBUSY while it has members."""
    _ioctl(fd, "remove", _group_name(group), _GROUP, struct.pack("=2Q", 0, group))


def assign(fd: int, member: int, group: int, *, assigned: bool = True) -> None:
    """Make a quota group a member of one on a higher level, or end that."""
    args = struct.pack("=3Q", assigned, member, group)
    _ioctl(fd, "assign", f"{_group_name(member)} to {_group_name(group)}", _ASSIGN, args)


def members(fd: int, group: int) -> list[int]:
    """Return the members of a quota group."""
    found = _search(fd, _QUOTA_TREE, group, _GROUP_RELATION)
    return [other for other, _ in found if other >> LEVEL_SHIFT < group >> LEVEL_SHIFT]


def limit(fd: int, group: int, size_bytes: int | None) -> None:
    """Hold a quota group to a size; None lifts the limit."""
    most = _NO_LIMIT if size_bytes is None else size_bytes
    args = struct.pack("=6Q", group, _LIMIT_REFERENCED, most, 0, 0, 0)
    _ioctl(fd, "limit", _group_name(group), _LIMIT, args)


def _path(fd: int, subvolume: int, directory: int) -> str:
    """Return the path of a directory below its subvolume's top, with "/" at its end if any."""
    args = struct.pack("=QQ4080x", subvolume, directory)
    found = _ioctl(fd, "path in", f"subvolume {subvolume}", _INO_LOOKUP, args)
    return os.fsdecode(bytes(found[16:]).partition(b"\0")[0])


def _search(fd: int, tree: int, subject: int, kind: int) -> Iterator[tuple[int, bytes]]:
    """Yield offset and content of the items of one kind that a tree has of its subject."""
    first = 0
    while True:
        key = _SEARCH_KEY.pack(
            tree, subject, subject, first, _NO_LIMIT, 0, _NO_LIMIT, kind, kind, 4096, 0, 0, 0, 0, 0
        )
        args = key.ljust(_SEARCH_BYTES, b"\0")
        raw = bytes(_ioctl(fd, "search", f"tree {tree}", _TREE_SEARCH, args))
        count = _SEARCH_KEY.unpack_from(raw)[9]
        if not count:
            return
        position = _SEARCH_KEY.size
        for _ in range(count):
            _, _, offset, _, length = _ITEM.unpack_from(raw, position)
            position += _ITEM.size
            yield offset, raw[position : position + length]
            position += length
            first = offset + 1


def _name(name: str) -> bytes:
    raw = os.fsencode(name)
    if len(raw) > 255:
        raise OSError(errno.ENAMETOOLONG, f"btrfs({name}): {os.strerror(errno.ENAMETOOLONG)}")
    return raw


def _group_name(group: int) -> str:
    return f"quota group {group >> LEVEL_SHIFT}/{group & ((1 << LEVEL_SHIFT) - 1)}"


def _ioctl(fd: int, action: str, subject: str, request: int, args: bytes) -> bytearray:
    """Make a call and return its arguments as it leaves them. Raises OSError naming both."""
    buffer = bytearray(args)
    try:
        fcntl.ioctl(fd, request, buffer)
    except OSError as error:
        number = error.errno or errno.EIO
        raise OSError(number, f"btrfs({action} {subject}): {os.strerror(number)}") from None
    return buffer
