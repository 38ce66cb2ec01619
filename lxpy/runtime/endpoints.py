"""Sockets of proxies, opened on one of two sides: on the host, or in an instance.

An instance's sockets are made in its network namespace and named below its root, whose paths are
resolved there: no link leads out. Source: socket(7), unix(7), openat2(2), setns(2).
"""

from __future__ import annotations

import _socket
import errno
import os
import stat

from lxpy.kernel import namespaces, processes
from lxpy.kernel.libc import prctl
from lxpy.runtime.steps import identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.runtime.fs import Confined
    from lxpy.runtime.plain import Endpoint, IdMapEntry, Proxy

_FLAGS = _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
_BACKLOG = 512
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
_STARTED = (0, errno.EINPROGRESS)


class Side:
    """Where sockets are opened: the host, or with a `root` and a `netns` an instance."""

    __slots__ = ("_home", "_idmap", "_netns", "_root")

    def __init__(
        self, root: Confined | None = None, netns: int = -1, home: int = -1,
        idmap: list[IdMapEntry] | None = None,
    ) -> None:  # fmt: skip
        self._root = root
        self._netns = netns
        self._home = home
        self._idmap = idmap or []

    def ids(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the host's ids of ids of this side. Raises ValueError for one it has not."""
        outside = identity.outside
        return outside(self._idmap, "u", uid), outside(self._idmap, "g", gid)

    @property
    def is_host(self) -> bool:
        """Whether it is the host."""
        return self._root is None

    def make(self, endpoint: Endpoint) -> _socket.socket:
        """Make a socket in the side's network namespace. Raises OSError."""
        kind = _socket.SOCK_DGRAM if endpoint["kind"] == "udp" else _socket.SOCK_STREAM
        if self._netns < 0:
            return _socket.socket(_family(endpoint), kind | _FLAGS)
        namespaces.join(self._netns, namespaces.NEWNET, "network namespace")
        try:
            return _socket.socket(_family(endpoint), kind | _FLAGS)
        finally:
            namespaces.join(self._home, namespaces.NEWNET, "network namespace")

    def parent(self, path: str) -> tuple[int, str]:
        """Open the directory of a path; return it and the last name. Raises OSError."""
        if self._root is not None:
            return self._root.parent(path)
        directory, name = os.path.split(path)
        return os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), name

    def open(self, path: str) -> int:
        """Open what is at a path, by descriptor (O_PATH). Raises OSError."""
        if self._root is not None:
            return self._root.open(path, os.O_PATH)
        return os.open(path, os.O_PATH | os.O_CLOEXEC)


def describe(endpoint: Endpoint) -> str:
    """Return an endpoint as users write it."""
    kind, address = endpoint["kind"], endpoint["address"]
    if kind == "unix":
        return f"unix:{address}"
    shown = f"[{address}]" if ":" in address else address
    return f"{kind}:{shown}:{endpoint['port']}"


def _family(endpoint: Endpoint) -> int:
    if endpoint["kind"] == "unix":
        return _socket.AF_UNIX
    return _socket.AF_INET6 if ":" in endpoint["address"] else _socket.AF_INET


class Bound:
    """A bound socket; its file goes with it."""

    __slots__ = ("_directory", "_file", "_name", "sock")

    def __init__(self, side: Side, endpoint: Endpoint, proxy: Proxy) -> None:
        """Bind, and listen where there are connections. Raises OSError that says where."""
        self._directory, self._name, self._file = -1, "", (0, 0)
        self.sock = side.make(endpoint)
        try:
            if endpoint["kind"] != "unix":
                self._bind_address(endpoint, freely=not side.is_host)
            elif endpoint["address"].startswith("@"):
                self.sock.bind("\0" + endpoint["address"][1:])
            else:
                self._bind_path(side, endpoint["address"], proxy)
            if endpoint["kind"] != "udp":
                self.sock.listen(_BACKLOG)
        except OSError as error:
            self.close()
            reason = os.strerror(error.errno or 0)
            where = "" if side.is_host else " in the instance"
            text = f"Failed to listen on {describe(endpoint)}{where}: {reason}"
            raise OSError(error.errno, text) from error

    def _bind_address(self, endpoint: Endpoint, *, freely: bool) -> None:
        """Bind; `freely` to addresses that are not there yet: instances get theirs later."""
        self.sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, endpoint["kind"] == "tcp")
        if freely and _family(endpoint) == _socket.AF_INET6:
            self.sock.setsockopt(_socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        elif freely:
            self.sock.setsockopt(_socket.IPPROTO_IP, _IP_FREEBIND, 1)
        self.sock.bind((endpoint["address"], endpoint["port"]))

    def _bind_path(self, side: Side, path: str, proxy: Proxy) -> None:
        root, owner = side.ids(0, 0), side.ids(proxy["uid"], proxy["gid"])
        mask = os.umask(0o177)
        try:
            with processes.file_owner(*root):
                self._directory, self._name = side.parent(path)
                place = f"/proc/self/fd/{self._directory}/{self._name}"
                try:
                    self.sock.bind(place)
                except OSError as error:
                    if error.errno != errno.EADDRINUSE or not _is_stale(place):
                        raise
                    os.unlink(self._name, dir_fd=self._directory)
                    self.sock.bind(place)
        finally:
            os.umask(mask)
        file = os.open(self._name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            status = os.fstat(file)
            if not stat.S_ISSOCK(status.st_mode):
                raise OSError(errno.EADDRINUSE, "somebody has replaced it")
            self._file = (status.st_dev, status.st_ino)
            os.chown(f"/proc/self/fd/{file}", *owner)
            os.chmod(f"/proc/self/fd/{file}", proxy["mode"])
        finally:
            os.close(file)

    def close(self) -> None:
        """Close it, and remove its file unless that is somebody else's by now."""
        self.sock.close()
        if self._directory < 0:
            return
        try:
            status = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
            if (status.st_dev, status.st_ino) == self._file:
                os.unlink(self._name, dir_fd=self._directory)
        except OSError:
            return  # it went with what it lay in
        finally:
            os.close(self._directory)
            self._directory = -1


def _is_stale(place: str) -> bool:
    """Whether a socket's file is one that nobody listens at."""
    if not stat.S_ISSOCK(os.lstat(place).st_mode):
        return False
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _FLAGS)
    try:
        return probe.connect_ex(place) == errno.ECONNREFUSED
    finally:
        probe.close()


class _acting_as:
    """Be another user for the length of a block; `keeps` its capabilities meanwhile.

    A peer sees these ids, and files let them in or not. Only for a single-threaded process.
    """

    def __init__(self, uid: int, gid: int, *, keeps: bool) -> None:
        self.uid, self.gid, self.keeps = uid, gid, keeps
        self._bits = 0

    def __enter__(self) -> None:
        if not (self.uid or self.gid):
            return
        if self.keeps:
            self._bits = prctl("PR_GET_SECUREBITS", processes.PR_GET_SECUREBITS)
            bits = self._bits | processes.SECBIT_NO_SETUID_FIXUP
            prctl("PR_SET_SECUREBITS", processes.PR_SET_SECUREBITS, bits)
        os.setegid(self.gid)
        os.seteuid(self.uid)

    def __exit__(self, *_: object) -> None:
        if not (self.uid or self.gid):
            return
        os.seteuid(0)
        os.setegid(0)
        if self.keeps:
            prctl("PR_SET_SECUREBITS", processes.PR_SET_SECUREBITS, self._bits)


def connect(side: Side, endpoint: Endpoint, proxy: Proxy) -> _socket.socket:
    """Begin a connection, which is there when the socket takes data.

    Raises OSError, BlockingIOError while a unix socket has more waiting than it takes.
    """
    asked = proxy["security_uid"] or proxy["security_gid"]
    ids = side.ids(proxy["security_uid"], proxy["security_gid"])
    sock = side.make(endpoint)
    try:
        with _acting_as(*ids, keeps=not asked):
            status = _begin(side, sock, endpoint)
        if status not in _STARTED:
            raise OSError(status, os.strerror(status))
    except OSError:
        sock.close()
        raise
    return sock


def _begin(side: Side, sock: _socket.socket, endpoint: Endpoint) -> int:
    if endpoint["kind"] != "unix":
        return sock.connect_ex((endpoint["address"], endpoint["port"]))
    if endpoint["address"].startswith("@"):
        return sock.connect_ex("\0" + endpoint["address"][1:])
    file = side.open(endpoint["address"])
    try:
        return sock.connect_ex(f"/proc/self/fd/{file}")
    finally:
        os.close(file)
