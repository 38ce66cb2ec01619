"""Making files below a directory, by names that an archive chose.

Every path is opened by openat2(RESOLVE_BENEATH): a link may be used as a directory only where it
stays inside. Ids and modes are taken as they are; no name of the host's users is ever looked up.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from lxpy.images.attributes import wanted
from lxpy.images.tarstream import BadArchive, printable
from lxpy.kernel.files import BENEATH, NO_MAGICLINKS, open_within

_DIRECTORY = os.O_PATH | os.O_DIRECTORY
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_ID = (1 << 32) - 2  # one more means "leave it alone" to chown(2)
_OPEN_PARENTS = 32
_T = TypeVar("_T")
# What the kernel says when a path leads out, through a file, or around in circles.
_LEADS_OUT = (errno.EXDEV, errno.ELOOP, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class Attributes:
    """Owner, mode (permission bits only), modification time and extended attributes."""

    uid: int
    gid: int
    mode: int
    mtime_ns: int
    xattrs: dict[str, bytes]


class Tree:
    """A directory being filled. The process must have umask 0; without root, owners are not set.

    Every method takes a checked relative path ("" is the directory itself) and raises BadArchive
    where the path is no honest one, OSError where the host fails.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._is_root = os.geteuid() == 0
        self._parents: dict[str, int] = {"": root}
        self._times: list[tuple[str, int]] = []

    def directory(self, path: str, attributes: Attributes) -> None:
        """Make a directory; one that is there gets the new attributes."""
        if path:
            parent, name = self._place(path)
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if not stat.S_ISDIR(found.st_mode):
                    os.unlink(name, dir_fd=parent)
                    os.mkdir(name, 0o700, dir_fd=parent)
            descriptor = os.open(
                name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent
            )
        else:
            descriptor = os.open(
                ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root
            )
        try:
            self._apply(descriptor, attributes)
        finally:
            os.close(descriptor)
        self._times.append((path, attributes.mtime_ns))

    def file(self, path: str, attributes: Attributes, fill: Callable[[int], None]) -> None:
        """Make a regular file; `fill` writes its content to the descriptor it is given."""
        parent, name = self._place(path)
        descriptor = self._fresh(
            parent, name, path, lambda: os.open(name, _CREATE, 0o600, dir_fd=parent)
        )
        try:
            fill(descriptor)
            self._apply(descriptor, attributes)
            os.utime(descriptor, ns=(attributes.mtime_ns, attributes.mtime_ns))
        finally:
            os.close(descriptor)

    def symlink(self, path: str, target: str, attributes: Attributes) -> None:
        """Make a symbolic link; where it points is the guest's business."""
        parent, name = self._place(path)
        self._fresh(parent, name, path, lambda: os.symlink(target, name, dir_fd=parent))
        self._finish_by_name(parent, name, attributes)

    def fifo(self, path: str, attributes: Attributes) -> None:
        """Make a named pipe."""
        parent, name = self._place(path)
        mode = attributes.mode
        self._fresh(parent, name, path, lambda: os.mkfifo(name, mode, dir_fd=parent))
        self._finish_by_name(parent, name, attributes)
        os.chmod(name, mode, dir_fd=parent)  # chown has cleared setuid bits

    def link(self, path: str, target: str) -> None:
        """Make a hard link to a file of the same tree."""
        parent, name = self._place(path)
        from_parent, from_name = self._place(target)

        def make() -> None:
            os.link(
                from_name, name, src_dir_fd=from_parent, dst_dir_fd=parent, follow_symlinks=False
            )

        try:
            self._fresh(parent, name, path, make)
        except FileNotFoundError:
            raise BadArchive(
                f'member "{printable(path)}" is a hard link to "{printable(target)}", '
                "which is not in the archive"
            ) from None
        except PermissionError:
            raise BadArchive(f'member "{printable(path)}" is a hard link to a directory') from None

    def remove(self, path: str) -> None:
        """Remove a file, or a directory with all that is in it; what is not there is none."""
        above, _, name = path.rpartition("/")
        parent = self._open(above, path) if above else os.dup(self._root)
        if parent is None:
            return
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            shutil.rmtree(name, dir_fd=parent)
            self._close_parents()  # some may have been inside
        finally:
            os.close(parent)

    def finish(self) -> None:
        """Set the directories' times, now that nothing is put into them any more."""
        for path, mtime_ns in reversed(self._times):
            try:
                parent, name = self._place(path) if path else (self._root, ".")
                os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)
            except (BadArchive, FileNotFoundError):
                continue  # replaced by a later member
        self._close_parents()

    def _place(self, path: str) -> tuple[int, str]:
        parent, _, name = path.rpartition("/")
        found = self._parents.get(parent)
        return (found if found is not None else self._open_parent(parent, path)), name

    def _open_parent(self, parent: str, path: str) -> int:
        if len(self._parents) > _OPEN_PARENTS:
            self._close_parents()
        descriptor = self._open(parent, path)
        if descriptor is None:
            # Archives may leave directories out; make them as tar does, topmost first.
            names = parent.split("/")
            for end in range(1, len(names) + 1):
                part = "/".join(names[:end])
                descriptor = self._open(part, path)
                if descriptor is None:
                    above, name = self._place(part)
                    try:
                        os.mkdir(name, 0o755, dir_fd=above)
                    except FileExistsError:
                        raise BadArchive(
                            f'member "{printable(path)}" is below a dangling link, '
                            f'"{printable(part)}"'
                        ) from None
                    descriptor = self._open(part, path)
                    assert descriptor is not None
                if end < len(names):
                    self._remember(part, descriptor)
        assert descriptor is not None
        self._remember(parent, descriptor)
        return descriptor

    def _open(self, directory: str, path: str) -> int | None:
        try:
            return open_within(self._root, directory, _DIRECTORY, resolve=BENEATH | NO_MAGICLINKS)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _LEADS_OUT:
                raise BadArchive(
                    f'member "{printable(path)}" is below "{printable(directory)}", '
                    "which is a link out of the image or no directory"
                ) from error
            raise

    def _remember(self, path: str, descriptor: int) -> None:
        old = self._parents.get(path)
        if old is not None:
            os.close(old)
        self._parents[path] = descriptor

    def _close_parents(self) -> None:
        for path, descriptor in self._parents.items():
            if path:
                os.close(descriptor)
        self._parents = {"": self._root}

    def _fresh(self, parent: int, name: str, path: str, make: Callable[[], _T]) -> _T:
        try:
            return make()
        except FileExistsError:
            pass
        try:
            os.unlink(name, dir_fd=parent)  # the later member wins, as in tar
        except IsADirectoryError:
            raise BadArchive(f'member "{printable(path)}" replaces a directory') from None
        return make()

    def _apply(self, descriptor: int, attributes: Attributes) -> None:
        self._forget_attributes(descriptor, attributes)
        if self._is_root:
            self._check_ids(attributes)
            os.fchown(descriptor, attributes.uid, attributes.gid)
        os.fchmod(descriptor, attributes.mode)  # after chown, which clears setuid bits
        for name, value in attributes.xattrs.items():
            self._set(descriptor, name, value)

    def _forget_attributes(self, descriptor: int, attributes: Attributes) -> None:
        """Remove what was there, or came from the default access list of the directory above."""
        try:
            found = os.listxattr(descriptor)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return
            raise
        for name in found:
            if wanted(name) and name not in attributes.xattrs:
                os.removexattr(descriptor, name)

    def _finish_by_name(self, parent: int, name: str, attributes: Attributes) -> None:
        if self._is_root:
            self._check_ids(attributes)
            os.chown(name, attributes.uid, attributes.gid, dir_fd=parent, follow_symlinks=False)
        times = (attributes.mtime_ns, attributes.mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def _check_ids(self, attributes: Attributes) -> None:
        if not (0 <= attributes.uid <= _MAX_ID and 0 <= attributes.gid <= _MAX_ID):
            raise BadArchive(f"owner {attributes.uid}:{attributes.gid} is out of range")

    def _set(self, descriptor: int, name: str, value: bytes) -> None:
        try:
            os.setxattr(descriptor, name, value)
        except OSError as error:
            # user.* is a nicety a file system may lack; a lost capability would break programs.
            if name == "security.capability" and self._is_root:
                raise
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL, errno.ENOSPC):
                raise
