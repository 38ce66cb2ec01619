"""The few file operations of storage that Python's library lacks (all of them block)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from lxpy.kernel import overlay
from lxpy.kernel.libc import AT_FDCWD, function, syscall

#: of overlays: they name inodes of another tree
_LOWER_REFERENCES = ("origin", "impure", "nlink")
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_SYNC_FILE_RANGE_WRITE = 2
_UNWILLING = (errno.EOPNOTSUPP, errno.EPERM)


def syncfs(path: Path) -> None:
    """Write out the file system that holds `path`. Source: syncfs(2)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        function("syncfs", str(path), descriptor)
    finally:
        os.close(descriptor)


def fsync_directory(path: Path) -> None:
    """Make renames in the directory last. Source: fsync(2)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_new(old: Path, new: Path) -> None:
    """Rename, and make it last; never replace anything, not even an empty directory.

    Raises FileExistsError, FileNotFoundError. Source: rename(2), RENAME_NOREPLACE.
    """
    names = os.fsencode(old), AT_FDCWD, os.fsencode(new)
    try:
        syscall("renameat2", f"{old} to {new}", AT_FDCWD, *names, _RENAME_NOREPLACE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        if os.path.lexists(new):  # a file system without the flag
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new)) from error
        os.rename(old, new)
    fsync_directory(new.parent)


def exchange(one: Path, other: Path) -> None:
    """Let two names change places, atomically. Source: rename(2), RENAME_EXCHANGE."""
    names = os.fsencode(one), AT_FDCWD, os.fsencode(other)
    syscall("renameat2", f"{one} and {other}", AT_FDCWD, *names, _RENAME_EXCHANGE)
    fsync_directory(other.parent)


def copy_attributes(source: Path, target: Path) -> None:
    """Give `target` the owner, mode and extended attributes of `source`; follow no link.

    Not what overlays have noted there: they write it anew.
    """
    noted = overlay.attribute("")
    found = os.lstat(source)
    if os.geteuid() == 0:
        os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
    for name in os.listxattr(source, follow_symlinks=False):
        if not name.startswith(noted):
            _set(target, name, os.getxattr(source, name, follow_symlinks=False))
    os.chmod(target, found.st_mode & 0o7777)


def forget_lower(upper: Path) -> None:
    """Remove from an overlay's writable layer what ties it to one particular copy of its image.

    Without this, `index=on` refuses the layer on top of another copy (ESTALE).
    """
    for top, names, others, _ in os.fwalk(upper, follow_symlinks=False):
        for path in [top, *(os.path.join(top, each) for each in (*names, *others))]:
            for attribute in map(overlay.attribute, _LOWER_REFERENCES):
                try:
                    os.removexattr(path, attribute, follow_symlinks=False)
                except OSError as error:
                    if error.errno not in (errno.ENODATA, *_UNWILLING):
                        raise


def _set(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _UNWILLING:
            raise


def start_writeback(descriptor: int) -> None:
    """Begin to write a file's dirty pages out, which write-protects its memory maps.

    Source: sync_file_range(2), SYNC_FILE_RANGE_WRITE.
    """
    function("sync_file_range", "write back", descriptor, 0, 0, _SYNC_FILE_RANGE_WRITE)
