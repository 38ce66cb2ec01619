"""Files in a rootfs that its container controls: no path leads outside, no link is trusted.

Everything goes through openat2(RESOLVE_IN_ROOT) relative to a descriptor of the rootfs.
"""

from __future__ import annotations

import errno
import os
import stat

from lxpy.kernel.files import CONFINED, NO_SYMLINKS, open_within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

O_PATH = os.O_PATH


class Confined:
    """A directory taken as "/": the rootfs of a container, running or not."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def at(cls, path: str) -> Confined:
        """Open a directory whose own path the host controls."""
        return cls(os.open(path, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    def close(self) -> None:
        os.close(self.fd)

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """Open as the container would see `path`, links followed inside. Raises OSError."""
        return open_within(self.fd, path, flags, mode)

    def plain_directory(self, path: str, mode: int = 0o755) -> int:
        """Open a directory reached without any link, made where it is missing."""
        resolve = CONFINED | NO_SYMLINKS
        try:
            return open_within(self.fd, path, O_PATH | os.O_DIRECTORY, resolve=resolve)
        except FileNotFoundError:
            os.mkdir(path, mode, dir_fd=self.fd)
            return open_within(self.fd, path, O_PATH | os.O_DIRECTORY, resolve=resolve)

    def directory(self, path: str, mode: int = 0o755) -> int:
        """Open a directory by descriptor (O_PATH); make it and its parents where missing."""
        try:
            return self.open(path, O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            pass
        done = ""
        fd = self.open(".", O_PATH | os.O_DIRECTORY)
        for name in _names(path):
            done = f"{done}/{name}"
            try:
                following = self.open(done, O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                try:
                    # `fd` was resolved inside the rootfs and `name` is one plain name.
                    os.mkdir(name, mode, dir_fd=fd)
                    following = self.open(done, O_PATH | os.O_DIRECTORY)
                except FileExistsError as error:
                    os.close(fd)
                    text = f"{done} is a link that leads nowhere in the rootfs"
                    raise OSError(errno.ELOOP, text) from error
                except OSError:
                    os.close(fd)
                    raise
            os.close(fd)
            fd = following
        return fd

    def parent(self, path: str) -> tuple[int, str]:
        """Return the directory that holds `path` (made where missing) and the last name.

        Raises ValueError for a path without a last name, such as "/".
        """
        directory, _, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            raise ValueError(f"{path!r} names no file")
        return self.directory(directory or "/"), name

    def file(self, path: str) -> int:
        """Open something that is no directory (O_PATH); make an empty file where missing."""
        try:
            return self.open(path, O_PATH)
        except FileNotFoundError:
            fd, name = self.parent(path)
            try:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=fd))
            finally:
                os.close(fd)
            return self.open(path, O_PATH)

    def write(self, path: str, content: bytes, mode: int, *, create_only: bool = False) -> bool:
        """Write a whole file; `mode` counts where it is made. Tell whether it was written.

        Raises OSError; a fifo or a device in its place is refused, not written to.
        """
        fd, _ = self.parent(path)
        os.close(fd)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
        try:
            file = self.open(path, flags | os.O_EXCL, mode)
        except FileExistsError:
            if create_only:
                return False
            file = self.open(path, flags)
        else:
            os.fchmod(file, mode)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(22, f"write({path}): not a regular file")
            os.ftruncate(file, 0)
            view = memoryview(content)
            while view:
                view = view[os.write(file, view) :]
        finally:
            os.close(file)
        return True

    def real_path(self, path: str) -> str:
        """Return the path that `path` leads to after all links, as the container sees it."""
        fd = self.open(path, O_PATH)
        try:
            found = os.readlink(f"/proc/self/fd/{fd}")
            root = os.readlink(f"/proc/self/fd/{self.fd}")
        finally:
            os.close(fd)
        return found.removeprefix(root.rstrip("/")) or "/"

    def read(self, path: str, limit: int) -> bytes:
        """Read at most `limit` bytes of a regular file."""
        fd = self.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(22, f"read({path}): not a regular file")
            return os.read(fd, limit)
        finally:
            os.close(fd)


def _names(path: str) -> Iterator[str]:
    for name in path.split("/"):
        if name not in ("", "."):
            yield name
