"""What GuestFiles and Upload share: which files may be touched, and what goes wrong with them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from lxpy.errors import BadRequest, Failed, NotFound
from lxpy.kernel.files import NO_XDEV, file_system, open_within
from lxpy.runtime.owners import Unmapped

# By number, statfs(2): file systems whose files are switches and gauges of the kernel's. The
# host's root could do through them what the guest's root may not.
_OF_THE_KERNEL = frozenset((
    0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x64626720, 0x74726163, 0x73636673, 0xCAFE4A11,
    0xDE5E81E4, 0x6165676C, 0x62656570, 0xF97CFF8C, 0x43415D53, 0x42494E4D, 0x1CD1, 0x19800202,
    0x6E667364, 0x67596969, 0x65735543, 0x5A3C69F0, 0x7655821, 0x6E736673,
))  # fmt: skip
#: how to open what a guest has put there: no link is followed, nobody is waited for
QUIETLY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def is_stored(fd: int) -> bool:
    """Tell whether a directory's file system keeps files, other than /proc, /sys and the like."""
    return file_system(fd) not in _OF_THE_KERNEL


def is_mounted(parent: int, name: str) -> bool:
    """Tell whether something is mounted on a name, in the namespace that `parent` is of.

    The kernel itself protects the mounts of the caller's namespace alone, and takes those of a
    guest away together with the name.
    """
    try:
        os.close(open_within(parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=NO_XDEV))
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return True
    return False


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of it. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def open_regular(parent: int, name: str, flags: int, path: str) -> int:
    """Open a regular file of a real file system; a device would do things when it is opened."""
    place = os.open(name, os.O_PATH | QUIETLY, dir_fd=parent)
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise irregular(path)
        check_stored(place, path)
        return os.open(f"/proc/self/fd/{place}", flags | os.O_CLOEXEC)
    finally:
        os.close(place)


def check_stored(fd: int, path: str) -> None:
    """Raise BadRequest for what `is_stored` says no to."""
    if not is_stored(fd):
        raise BadRequest(
            f'"{path}" belongs to the kernel and is no file of the instance: read or write it '
            'with "lxpy exec"'
        )


def irregular(path: str) -> BadRequest:
    """Return the error for something that has no content."""
    return BadRequest(f'"{path}" is not a regular file: its content can be neither read nor set')


def explain(error: OSError, path: str) -> Exception:
    """Return what a failed system call means for the path that a client has named."""
    reason = os.strerror(error.errno or 0)
    match error.errno:
        case errno.ENOENT:
            return NotFound(f'Not Found: the instance has no "{path}"')
        case errno.ENOTDIR:
            return NotFound(f'Not Found: "{path}" is below something that is no directory')
        case errno.ELOOP:
            return BadRequest(f'"{path}" is a symbolic link, or leads through too many')
        case errno.EISDIR | errno.ENXIO | errno.ENODEV:
            return irregular(path)
        case errno.ENAMETOOLONG | errno.EINVAL:
            return BadRequest(f'Invalid path "{path[:200]}": {reason}')
        case errno.ENOTEMPTY:
            return Failed(f"remove {path}: directory not empty: delete what is in it first")
        case errno.EBUSY:
            return Failed(f'"{path}" is in use: something is mounted there in the instance')
        case errno.EROFS:
            return BadRequest(f'"{path}" is on a read-only file system')
        case errno.ENOSPC:
            return Failed(f'No space left for "{path}": free some in the instance or its pool')
        case errno.EDQUOT:
            return Failed(f'No space left for "{path}": the quota is used up, raise size')
    return Failed(f'"{path}": {reason}')


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn what goes wrong in a block into an error that names the path."""
    try:
        yield
    except OSError as error:
        raise explain(error, path) from error
    except Unmapped as error:
        raise BadRequest(f'Invalid owner of "{path}": {error}') from error
