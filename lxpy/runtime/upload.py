"""A file on its way into a guest: nothing of it is seen before it is whole."""

from __future__ import annotations

import errno
import os
import secrets
import stat

from lxpy.kernel.credentials import acting_as
from lxpy.runtime.guestfiles import GuestFiles, Wish
from lxpy.runtime.guestpaths import (
    QUIETLY,
    explained,
    irregular,
    is_mounted,
    open_regular,
    write_all,
)

_KEPT = ("user.", "system.posix_acl_access")
_NEW_FILE = 0o644
_COPY = 1 << 24


class Upload:
    """A file on its way: `commit` puts it in its place, `close` without that leaves no trace.

    Owner and permissions are as wished for where the file is new; one that is there keeps its own.
    """

    def __init__(self, files: GuestFiles, path: str, wish: Wish) -> None:
        self._files = files
        self._path = path
        self._wish = wish
        self._temporary = ""
        with explained(path):
            self._begin()

    def _begin(self) -> None:
        self._owner = self._files.owner(self._wish)
        with self._files.final(self._path) as (parent, name, _):
            self._name = name
            self._old(parent)
            self._parent = os.dup(parent)
        try:
            with acting_as(*self._files.owners.root):
                self._fd = self._make()
        except BaseException:
            os.close(self._parent)
            raise

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add to the content."""
        with explained(self._path), acting_as(*self._files.owners.root):
            write_all(self._fd, data)

    def seek(self, offset: int) -> None:
        """Go on at an offset: what is left out is a hole."""
        os.lseek(self._fd, offset, os.SEEK_SET)

    def commit(self, size: int | None = None) -> None:
        """Make it what is seen at the path; with `size`, a hole up to there is its end."""
        with explained(self._path), acting_as(*self._files.owners.root):
            if size is not None:
                os.ftruncate(self._fd, size)
            old = self._old(self._parent)
            if old is None:
                self._dress()
                if self._publish():
                    return
                old = self._old(self._parent)  # it has appeared meanwhile
            if old is not None:
                self._replace(old)

    def close(self) -> None:
        """Let go of everything."""
        if self._temporary:
            with acting_as(*self._files.owners.root):
                os.unlink(self._temporary, dir_fd=self._parent)
            self._temporary = ""
        for fd in (self._fd, self._parent):
            os.close(fd)

    def _old(self, parent: int) -> os.stat_result | None:
        """Return the file that is there now. Raises BadRequest for what is no regular file."""
        try:
            status = os.stat(self._name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise irregular(self._path)
        return status

    def _make(self) -> int:
        try:
            return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=self._parent)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
                raise
        # A file system without unnamed files, such as overlayfs before Linux 6.1.
        name = _temporary_name()
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | QUIETLY, 0o600,
                     dir_fd=self._parent)  # fmt: skip
        self._temporary = name
        return fd

    def _dress(self) -> None:
        """Make a new file what it is wished to be."""
        os.fchown(self._fd, *self._owner)
        # chown has cleared setuid bits
        os.fchmod(self._fd, _NEW_FILE if self._wish.mode is None else self._wish.mode)
        self._finish(self._fd)

    def _finish(self, fd: int) -> None:
        """Set what writing and chown would change: last."""
        for attribute, value in self._wish.attributes.items():
            os.setxattr(fd, attribute, value)
        if (modified := self._wish.modified_ns) is not None:
            os.utime(fd, ns=(modified, modified))

    def _publish(self) -> bool:
        """Give the file its name, unless that is taken."""
        try:
            self._link_as(self._name)
        except FileExistsError:
            return False
        return True

    def _link_as(self, name: str) -> None:
        here = self._parent
        if self._temporary:
            os.link(self._temporary, name, src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)
        else:
            os.link(f"/proc/self/fd/{self._fd}", name, dst_dir_fd=here, follow_symlinks=True)

    def _replace(self, old: os.stat_result) -> None:
        keeper = open_regular(self._parent, self._name, os.O_RDONLY, self._path)
        try:
            _keep_attributes(keeper, self._fd)
        finally:
            os.close(keeper)
        if old.st_nlink > 1 or is_mounted(self._parent, self._name):
            self._overwrite()  # its other names, or places, go on being the same file
            return
        os.fchown(self._fd, old.st_uid, old.st_gid)
        os.fchmod(self._fd, stat.S_IMODE(old.st_mode))
        self._finish(self._fd)
        name = self._temporary
        if not name:
            name = _temporary_name()
            self._link_as(name)
            self._temporary = name
        os.rename(name, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
        self._temporary = ""

    def _overwrite(self) -> None:
        """Copy the content into the file that is there, which stays the same file."""
        target = open_regular(self._parent, self._name, os.O_WRONLY, self._path)
        try:
            size = os.fstat(self._fd).st_size
            offset = 0
            while offset < size:
                offset += os.sendfile(target, self._fd, offset, min(size - offset, _COPY))
            os.ftruncate(target, size)
            self._finish(target)
        finally:
            os.close(target)


def _temporary_name() -> str:
    return f".lxpy-{secrets.token_hex(8)}"


def _keep_attributes(old: int, new: int) -> None:
    """Give the new file the access list and user attributes of the old one."""
    for attribute in os.listxattr(old):
        if attribute.startswith(_KEPT):
            os.setxattr(new, attribute, os.getxattr(old, attribute))
