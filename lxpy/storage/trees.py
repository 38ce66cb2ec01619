"""Copying a tree of files that its guest goes on writing to, in two rounds.

The first round copies everything while the guest runs; the second, while it does not, only what
changed since. A file is unchanged when its inode and change time are: neither can be set by a
guest. What it wrote through a memory map counts, as every file is written back, and thereby
write-protected, before it is copied: the next write by that map sets the change time.

Directories are opened by descriptor and no link is followed: the guest may move things about
while they are walked. All of this blocks: call it in a thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from lxpy.storage import files
from lxpy.threads import in_thread

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Before Linux 6.13 two changes within one tick have the same time.
_TICK_NS = 20_000_000
_UNWILLING = (errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL)
_CHUNK = 1 << 30
_LONG_ROUND_S = 1.0
_PATH_CHARACTERS = 4000

_Walk = Generator["_Walk", None, None]
_Seen = tuple[int, int]  # inode, change time
_UNSURE: _Seen = (0, 0)
#: tells that the file of the first status has the same content and attributes as the second's
Quiet = Callable[[], AbstractAsyncContextManager[None]]
Same = Callable[[os.stat_result, os.stat_result], bool]


class GivenUp(Exception):
    """The copy is not wanted any more."""


class Copier:
    """Copies the trees `names` below one directory to another, again and again.

    `writeback` is for trees that are being written to. What the target has already and is the
    `same` in the source is left. Hard links among all of them are kept.
    Raises OSError.
    """

    def __init__(
        self,
        source: int,
        target: int,
        names: Iterable[str] = (".",),
        *,
        writeback: bool = False,
        same: Same | None = None,
    ) -> None:
        self._source = source
        self._target = target
        self._names = tuple(names)
        self._writeback = writeback
        self._same = same
        self._seen: dict[str, _Seen] = {}
        self._given_up = False

    def give_up(self) -> None:
        """Make a round that is under way, in another thread, end early with GivenUp."""
        self._given_up = True

    def round(self) -> None:
        """Make the target what the source is; what changes meanwhile needs another round."""
        _Round(self, self._seen).run()

    @property
    def ends(self) -> tuple[int, int]:
        """The descriptors of source and target."""
        return self._source, self._target


class _Round:
    """One walk through the source."""

    def __init__(self, copier: Copier, seen: dict[str, _Seen]) -> None:
        self._copier = copier
        self._seen = seen
        self._found: set[str] = set()
        self._links: dict[int, str] = {}
        self._began_ns = time.time_ns()
        self._same = copier._same
        self._directories: list[tuple[str, os.stat_result]] = []

    def run(self) -> None:
        source, target = self._copier.ends
        for name in self._copier._names:
            try:
                status = os.stat(name, dir_fd=source, follow_symlinks=False)
            except FileNotFoundError:
                continue
            below = self._entry(source, target, name, name, status)
            if below is not None:
                _drive(below)
        for path in self._seen.keys() - self._found:
            del self._seen[path]
        for path, status in reversed(self._directories):
            times = (status.st_atime_ns, status.st_mtime_ns)
            try:
                os.utime(path, ns=times, dir_fd=target, follow_symlinks=False)
            except FileNotFoundError:
                continue  # it went away after it was copied

    def _entry(
        self, source: int, target: int, name: str, path: str, status: os.stat_result
    ) -> _Walk | None:
        """Copy one entry; of a directory, return the walk that copies it."""
        if self._copier._given_up:
            raise GivenUp
        if len(path) > _PATH_CHARACTERS:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path[:80])
        self._found.add(path)
        if stat.S_ISDIR(status.st_mode):
            return self._directory(source, target, name, path, status)
        key = self._key(status)
        if (key != _UNSURE and self._seen.get(path) == key) or self._is_there(target, name, status):
            self._seen[path] = key
            if status.st_nlink > 1:
                self._links.setdefault(status.st_ino, path)
            return None
        _remove(target, name)
        self._seen.pop(path, None)
        other = self._links.get(status.st_ino) if status.st_nlink > 1 else None
        if other is not None:
            os.link(
                other, name, src_dir_fd=self._copier.ends[1], dst_dir_fd=target,
                follow_symlinks=False,
            )  # fmt: skip
        else:
            self._make(source, target, name, status)
            if status.st_nlink > 1:
                self._links[status.st_ino] = path
        self._seen[path] = key
        return None

    def _key(self, status: os.stat_result) -> _Seen:
        """Return what changes with a file, _UNSURE if it may change without that.

        One moment decides for a whole round, so that all names of a file have the same.
        """
        if self._began_ns - status.st_ctime_ns < _TICK_NS:
            return _UNSURE
        return (status.st_ino, status.st_ctime_ns)

    def _is_there(self, target: int, name: str, status: os.stat_result) -> bool:
        if self._same is None:
            return False
        try:
            have = os.stat(name, dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return self._same(status, have)

    def _directory(
        self, source: int, target: int, name: str, path: str, status: os.stat_result
    ) -> _Walk:
        inside = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            kept = self._is_there(target, name, status)
            outside = _open_directory(target, name)
            try:
                key = self._key(status)
                if not kept and (key == _UNSURE or self._seen.get(path) != key):
                    _attributes(inside, outside, status)
                self._seen[path] = key
                if not kept:
                    self._directories.append((path, status))
                yield from self._children(inside, outside, path)
            finally:
                os.close(outside)
        finally:
            os.close(inside)

    def _children(self, inside: int, outside: int, path: str) -> _Walk:
        with os.scandir(inside) as entries:
            names = [each.name for each in entries]
        for extra in set(os.listdir(outside)).difference(names):
            _remove(outside, extra)
        for name in names:
            below = f"{path}/{name}"
            try:
                status = os.stat(name, dir_fd=inside, follow_symlinks=False)
                directory = self._entry(inside, outside, name, below, status)
                if directory is not None:
                    yield directory
            except (FileNotFoundError, NotADirectoryError):
                self._gone(outside, name, below)
            except OSError as error:
                if error.errno != errno.ELOOP:  # a link took its place: the next round sees it
                    raise
                self._gone(outside, name, below)

    def _gone(self, outside: int, name: str, path: str) -> None:
        """Leave out what went away, or became something else, while it was looked at."""
        _remove(outside, name)
        self._seen.pop(path, None)
        self._found.discard(path)

    def _make(self, source: int, target: int, name: str, status: os.stat_result) -> None:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            self._file(source, target, name, status)
            return
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, kind | 0o600, status.st_rdev, dir_fd=target)
        _attributes_by_name(source, target, name, status)

    def _file(self, source: int, target: int, name: str, status: os.stat_result) -> None:
        reading = os.open(name, _READ, dir_fd=source)
        try:
            if not stat.S_ISREG(os.fstat(reading).st_mode):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            writing = os.open(name, _WRITE, 0o600, dir_fd=target)
            try:
                if self._copier._writeback:
                    files.start_writeback(reading)
                copy_content(reading, writing)
                _attributes(reading, writing, status)
                os.utime(writing, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(writing)
        finally:
            os.close(reading)


def _drive(top: _Walk) -> None:
    """Walk as deep as it goes: a guest can nest directories deeper than functions may call."""
    stack = [top]
    error: OSError | None = None
    try:
        while stack:
            try:
                stack.append(next(stack[-1]) if error is None else stack[-1].throw(error))
                error = None
            except StopIteration:
                stack.pop()
                error = None
            except OSError as failed:
                stack.pop()
                error = failed
    finally:
        for each in reversed(stack):
            each.close()
    if error is not None:
        raise error


def copy_content(reading: int, writing: int) -> None:
    """Copy a file's data and holes; blocks are shared where the file system can."""
    size = os.fstat(reading).st_size
    position = 0
    while position < size:
        try:
            start = os.lseek(reading, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # nothing but a hole from here on
        position = os.lseek(reading, start, os.SEEK_HOLE)
        _copy_range(reading, writing, start, position)
    os.ftruncate(writing, size)


def _copy_range(reading: int, writing: int, start: int, end: int) -> None:
    while start < end:
        count = min(end - start, _CHUNK)
        try:
            copied = os.copy_file_range(reading, writing, count, start, start)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            os.lseek(writing, start, os.SEEK_SET)
            copied = os.sendfile(writing, reading, start, min(count, 1 << 24))
        if copied == 0:
            return  # it became shorter meanwhile
        start += copied


def _open_directory(target: int, name: str) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=target)
    except FileNotFoundError:
        pass
    except (NotADirectoryError, OSError) as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        os.unlink(name, dir_fd=target)
    os.mkdir(name, 0o700, dir_fd=target)
    return os.open(name, _DIRECTORY, dir_fd=target)


def _remove(target: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=target)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except IsADirectoryError:
        try:
            shutil.rmtree(name, dir_fd=target)
        except RecursionError as error:
            text = os.strerror(errno.ENAMETOOLONG)
            raise OSError(errno.ENAMETOOLONG, text, name) from error


def _attributes(source: int, target: int, status: os.stat_result) -> None:
    """Give an open file or directory the owner, mode and extended attributes of another."""
    os.fchown(target, status.st_uid, status.st_gid)
    have = set(os.listxattr(target))
    wanted = os.listxattr(source)
    for attribute in wanted:
        _set(target, attribute, os.getxattr(source, attribute))
    for attribute in have.difference(wanted):
        os.removexattr(target, attribute)
    os.fchmod(target, stat.S_IMODE(status.st_mode))  # after chown, which clears setuid bits


def _attributes_by_name(source: int, target: int, name: str, status: os.stat_result) -> None:
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    # There are no *at calls for attributes; the last name is not followed.
    old, new = f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}"
    for attribute in os.listxattr(old, follow_symlinks=False):
        value = os.getxattr(old, attribute, follow_symlinks=False)
        try:
            os.setxattr(new, attribute, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _UNWILLING:
                raise
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _set(target: int, attribute: str, value: bytes) -> None:
    try:
        os.setxattr(target, attribute, value)
    except OSError as error:
        # A file system may lack user.* attributes; what overlayfs or a program needs it must not.
        if not attribute.startswith("user.") or error.errno not in _UNWILLING:
            raise


async def copy(source: Path, target: Path, names: Iterable[str], quiet: Quiet | None) -> None:
    """Copy the trees `names` from one directory to another.

    While somebody writes to them, `quiet` makes him stop: for the last round only. Raises OSError.
    """
    from_fd, to_fd = [await in_thread(os.open, each, _DIRECTORY) for each in (source, target)]
    try:
        copier = Copier(from_fd, to_fd, names, writeback=quiet is not None)
        begun = time.monotonic()
        await _round(copier)
        if quiet is None:
            return
        if time.monotonic() - begun > _LONG_ROUND_S:
            await _round(copier)  # less is left for the moment of silence
        async with quiet():
            await _round(copier)
    finally:
        os.close(from_fd)
        os.close(to_fd)


async def synchronize(source: int, target: int, same: Same) -> None:
    """Make one tree what another is, by their descriptors; leave what is the `same`."""
    await _round(Copier(source, target, same=same))


async def _round(copier: Copier) -> None:
    """Make one round; a caller that is cancelled waits until its thread has stopped."""
    work = asyncio.ensure_future(asyncio.to_thread(copier.round))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        copier.give_up()
        await asyncio.wait([work])
        work.exception()  # seen: the cancellation is what the caller hears of
        raise
