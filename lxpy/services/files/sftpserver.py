"""The program that serves a guest's files over SFTP: one short process per session.

Standard input is the client's connection, both ways. What the other ways of transfer refuse is
refused here, too; but files are written in place, as whoever mounts them expects.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lxpy.errors import BadRequest, Conflict, LxpyError, NotFound
from lxpy.kernel.credentials import acting_as
from lxpy.kernel.files import open_within
from lxpy.kernel.libc import syscall
from lxpy.runtime.guestfiles import GuestFiles
from lxpy.runtime.guestpaths import (
    QUIETLY,
    check_stored,
    explain,
    is_mounted,
    open_regular,
)
from lxpy.runtime.owners import Unmapped
from lxpy.services.files import sftpwire as wire
from lxpy.services.files.sftpwire import Attrs, BadMessage, Message
from lxpy.services.files.treejob import carry_out

_READ, _WRITE, _APPEND, _CREATE, _TRUNCATE, _EXCLUSIVE = 1, 2, 4, 8, 16, 32
_NAMES_AT_ONCE = 100
_HANDLES_MAX = 1000
_NOREPLACE = 1
_NEW_FILE, _NEW_DIRECTORY = 0o644, 0o755
_EXTENSIONS = (
    (b"posix-rename@openssh.com", b"1"), (b"statvfs@openssh.com", b"2"),
    (b"hardlink@openssh.com", b"1"), (b"fsync@openssh.com", b"1"),
)  # fmt: skip

Reply = bytes


class Server:
    """One session."""

    def __init__(self, files: GuestFiles, connection: socket.socket) -> None:
        self._files = files
        self._connection = connection
        self._open: dict[bytes, int] = {}
        self._listings: dict[bytes, Iterator[str]] = {}
        self._handles = itertools.count()
        self._calls: dict[int, Callable[[Message], Reply]] = {
            wire.OPEN: self._open_file, wire.CLOSE: self._close, wire.READ: self._read,
            wire.WRITE: self._write, wire.LSTAT: self._lstat, wire.STAT: self._stat,
            wire.FSTAT: self._fstat, wire.SETSTAT: self._setstat, wire.FSETSTAT: self._fsetstat,
            wire.OPENDIR: self._open_directory, wire.READDIR: self._read_directory,
            wire.REMOVE: self._remove, wire.MKDIR: self._make_directory,
            wire.RMDIR: self._remove_directory, wire.REALPATH: self._real_path,
            wire.RENAME: self._rename, wire.READLINK: self._read_link,
            wire.SYMLINK: self._make_link, wire.EXTENDED: self._extended,
        }  # fmt: skip

    def serve(self) -> None:
        """Answer until the client goes away."""
        with acting_as(*self._files.owners.root):
            while (data := self._receive()) is not None:
                self._connection.sendall(self._answer(data))

    def _receive(self) -> bytes | None:
        head = self._exactly(4)
        if head is None:
            return None
        size = int.from_bytes(head, "big")
        return self._exactly(size) if 0 < size <= wire.PACKET_BYTES else None

    def _exactly(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            part = self._connection.recv(size - len(data))
            if not part:
                return None
            data += part
        return bytes(data)

    def _answer(self, data: bytes) -> bytes:
        kind, message = data[0], Message(data[1:])
        if kind == wire.INIT:
            known = (wire.string(each) for pair in _EXTENSIONS for each in pair)
            return wire.packet(wire.VERSION_REPLY, wire.number(wire.VERSION), *known)
        identity = wire.number(message.number())
        try:
            reply = self._calls.get(kind, _unsupported)(message)
        except BadMessage as error:
            reply = _status(wire.BAD_MESSAGE, str(error))
        except Unmapped as error:
            reply = _status(wire.FAILURE, str(error))
        except (OSError, LxpyError) as error:
            reply = _failure(error)
        # every reply begins with its kind, after which the request's number belongs
        return wire.packet(reply[0], identity, reply[1:])

    # Files

    def _open_file(self, message: Message) -> Reply:
        path, flags, attrs = message.path(), message.number(), message.attrs()
        wanted = {_READ: os.O_RDONLY, _WRITE: os.O_WRONLY, _READ | _WRITE: os.O_RDWR}
        how = wanted.get(flags & (_READ | _WRITE), os.O_RDONLY)
        how |= os.O_APPEND if flags & _APPEND else 0
        with self._files.final(path) as (parent, name, _):
            fd = self._create(parent, name, how, flags, attrs)
            if fd < 0:
                fd = open_regular(parent, name, how, path)
                if flags & _TRUNCATE:
                    os.ftruncate(fd, 0)
        return self._handle(fd)

    def _create(self, parent: int, name: str, how: int, flags: int, attrs: Attrs) -> int:
        """Make a new file; -1 for one that is there, and may be."""
        if not flags & _CREATE:
            return -1
        mode = _NEW_FILE if attrs.mode is None else attrs.mode
        try:
            return os.open(name, how | os.O_CREAT | os.O_EXCL | QUIETLY, mode, dir_fd=parent)
        except FileExistsError:
            if flags & _EXCLUSIVE:
                raise
            return -1

    def _close(self, message: Message) -> Reply:
        handle = message.string()
        self._listings.pop(handle, None)
        os.close(self._descriptor(handle))
        del self._open[handle]
        return _OK

    def _read(self, message: Message) -> Reply:
        fd, offset, size = self._taken(message), message.long(), message.number()
        data = os.pread(fd, min(size, wire.MAX_BYTES), offset)
        if not data:
            return _status(wire.EOF, "end of file")
        return _reply(wire.DATA, wire.string(data))

    def _write(self, message: Message) -> Reply:
        fd, offset, data = self._taken(message), message.long(), message.string()
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, offset)
            view, offset = view[written:], offset + written
        return _OK

    def _fstat(self, message: Message) -> Reply:
        return self._attributes(os.fstat(self._taken(message)))

    def _fsetstat(self, message: Message) -> Reply:
        fd, attrs = self._taken(message), message.attrs()
        if attrs.size is not None:
            os.ftruncate(fd, attrs.size)
        self._set(f"/proc/self/fd/{fd}", attrs)
        return _OK

    # Directories

    def _open_directory(self, message: Message) -> Reply:
        fd = self._files.open_directory(message.path())
        reply = self._handle(fd)
        self._listings[next(reversed(self._open))] = iter([".", "..", *os.listdir(fd)])
        return reply

    def _read_directory(self, message: Message) -> Reply:
        handle = message.string()
        fd, listing = self._descriptor(handle), self._listings.get(handle)
        if listing is None:
            raise BadMessage("the handle is of no directory")
        names = [
            self._name(os.fsencode(each), status)
            for each in itertools.islice(listing, _NAMES_AT_ONCE)
            if (status := _status_in(fd, each)) is not None
        ]
        if not names:
            return _status(wire.EOF, "end of directory")
        return _reply(wire.NAME, wire.number(len(names)), *names)

    def _name(self, name: bytes, status: os.stat_result) -> bytes:
        owner = self._files.owners.inside(status.st_uid, status.st_gid)
        line = wire.long_name(name, status, owner)
        return wire.string(name) + wire.string(line) + wire.attributes(status, owner)

    def _make_directory(self, message: Message) -> Reply:
        path, attrs = message.path(), message.attrs()
        with self._changing(path) as (parent, name):
            os.mkdir(name, _NEW_DIRECTORY if attrs.mode is None else attrs.mode, dir_fd=parent)
        return _OK

    def _remove_directory(self, message: Message) -> Reply:
        with self._changing(message.path()) as (parent, name):
            _check_free(parent, name)
            os.rmdir(name, dir_fd=parent)
        return _OK

    # Names

    def _lstat(self, message: Message) -> Reply:
        path = message.path()
        if not path.strip("/"):
            return self._attributes(os.stat(self._files.root))
        with self._files.place(path) as (parent, name, _):
            return self._attributes(os.stat(name, dir_fd=parent, follow_symlinks=False))

    def _stat(self, message: Message) -> Reply:
        with self._reached(message.path()) as fd:
            return self._attributes(os.fstat(fd))

    def _setstat(self, message: Message) -> Reply:
        path, attrs = message.path(), message.attrs()
        with self._reached(path) as fd:
            check_stored(fd, path)
            if attrs.size is not None:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
                os.truncate(f"/proc/self/fd/{fd}", attrs.size)
            self._set(f"/proc/self/fd/{fd}", attrs)
        return _OK

    def _remove(self, message: Message) -> Reply:
        with self._changing(message.path()) as (parent, name):
            _check_free(parent, name)
            os.unlink(name, dir_fd=parent)
        return _OK

    def _rename(self, message: Message) -> Reply:
        with (
            self._changing(message.path()) as (parent, name),
            self._changing(message.path()) as (to_parent, to_name),
        ):
            _check_free(parent, name)
            old, new = os.fsencode(name), os.fsencode(to_name)
            syscall("renameat2", name, parent, old, to_parent, new, _NOREPLACE)
        return _OK

    def _replace(self, message: Message) -> Reply:
        with (
            self._changing(message.path()) as (parent, name),
            self._changing(message.path()) as (to_parent, to_name),
        ):
            _check_free(parent, name)
            _check_free(to_parent, to_name)
            os.rename(name, to_name, src_dir_fd=parent, dst_dir_fd=to_parent)
        return _OK

    def _real_path(self, message: Message) -> Reply:
        path = "/" + os.path.normpath(message.path()).lstrip("/")
        return _reply(wire.NAME, wire.number(1), *(wire.string(os.fsencode(path)),) * 2,
                      wire.number(0))  # fmt: skip

    def _read_link(self, message: Message) -> Reply:
        with self._files.place(message.path()) as (parent, name, _):
            target = os.fsencode(os.readlink(name, dir_fd=parent))
        return _reply(wire.NAME, wire.number(1), *(wire.string(target),) * 2, wire.number(0))

    def _make_link(self, message: Message) -> Reply:
        # OpenSSH has the target first, against the draft, and all others follow it.
        target = message.string()
        with self._changing(message.path()) as (parent, name):
            os.symlink(target, os.fsencode(name), dir_fd=parent)
        return _OK

    # Extensions

    def _extended(self, message: Message) -> Reply:
        name = message.string()
        if name == b"posix-rename@openssh.com":
            return self._replace(message)
        if name == b"hardlink@openssh.com":
            old, new = message.path(), message.path()
            self._files.make_name(new, old)
            return _OK
        if name == b"fsync@openssh.com":
            os.fsync(self._taken(message))
            return _OK
        if name == b"statvfs@openssh.com":
            return self._space(message.path())
        return _unsupported(message)

    def _space(self, path: str) -> Reply:
        with self._reached(path) as fd:
            found = os.fstatvfs(fd)
        return _reply(wire.EXTENDED_REPLY, struct.pack(
            ">11Q", found.f_bsize, found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail,
            found.f_files, found.f_ffree, found.f_favail, found.f_fsid & (1 << 64) - 1,
            found.f_flag, found.f_namemax,
        ))  # fmt: skip

    # What these are made of

    def _handle(self, fd: int) -> Reply:
        if len(self._open) >= _HANDLES_MAX:
            os.close(fd)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        handle = b"%d" % next(self._handles)
        self._open[handle] = fd
        return _reply(wire.HANDLE, wire.string(handle))

    def _taken(self, message: Message) -> int:
        return self._descriptor(message.string())

    def _descriptor(self, handle: bytes) -> int:
        if handle not in self._open:
            raise BadMessage("unknown handle")
        return self._open[handle]

    @contextmanager
    def _reached(self, path: str) -> Iterator[int]:
        """Open what a path leads to, all links followed (O_PATH)."""
        fd = open_within(self._files.root, path, os.O_PATH)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _changing(self, path: str) -> Iterator[tuple[int, str]]:
        """Open the directory in which a name is made, removed or changed."""
        with self._files.place(path) as (parent, name, _):
            check_stored(parent, path)
            yield parent, name

    def _attributes(self, status: os.stat_result) -> Reply:
        owner = self._files.owners.inside(status.st_uid, status.st_gid)
        return _reply(wire.ATTRS, wire.attributes(status, owner))

    def _set(self, path: str, attrs: Attrs) -> None:
        if attrs.owner is not None:
            os.chown(path, *self._files.owners.outside(*attrs.owner))
        if attrs.mode is not None:
            os.chmod(path, attrs.mode)
        if attrs.times is not None:
            os.utime(path, attrs.times)


def _reply(kind: int, *parts: bytes) -> Reply:
    return bytes([kind]) + b"".join(parts)


def _status(code: int, text: str) -> Reply:
    message = text.encode("utf-8", "replace")
    return _reply(wire.STATUS, wire.number(code), wire.string(message), wire.string(b"en"))


def _unsupported(_: Message) -> Reply:
    return _status(wire.OP_UNSUPPORTED, "not supported")


_OK = _status(wire.OK, "success")


def _failure(error: OSError | LxpyError) -> Reply:
    """Return the status of an error, with its text."""
    if isinstance(error, OSError):
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _status(wire.PERMISSION_DENIED, os.strerror(error.errno))
        meaning = explain(error, "it")
        code = wire.NO_SUCH_FILE if isinstance(meaning, NotFound) else wire.FAILURE
        return _status(code, os.strerror(error.errno or errno.EIO))
    codes = {NotFound: wire.NO_SUCH_FILE, BadRequest: wire.FAILURE, Conflict: wire.FAILURE}
    return _status(codes.get(type(error), wire.FAILURE), str(error))


def _check_free(parent: int, name: str) -> None:
    """Raise OSError when something is mounted on a name; one that does not exist is free."""
    try:
        mounted = is_mounted(parent, name)
    except FileNotFoundError:
        return
    if mounted:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _status_in(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None  # it has gone meanwhile


def _serve(files: GuestFiles, _: str) -> None:
    # The daemon's event loop has made it non-blocking.
    connection = socket.socket(fileno=0)
    connection.setblocking(True)
    Server(files, connection).serve()


def main() -> None:
    """Run the job given as the only argument."""
    carry_out(_serve)


if __name__ == "__main__":
    main()
