"""The program that unpacks a backup from its standard input: one short process for each import.

First it reads index.yaml and tells it; then one line on the control socket says where the parts
go, and it goes on to the end. What it says are JSON lines: `{"index": TEXT}`, `{"bytes": N}` on
the way, `{"stream": NAME}` where a storage driver's own begins, at the end `{"done": {...}}` or
`{"error": TEXT, "kind": "archive" | "host"}`.
Runs on Python's own library alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from tarfile import TarInfo
from typing import Any

from lxpy.images.extract import Extraction
from lxpy.images.extract import Job as Layout
from lxpy.images.tarstream import BadArchive, Reader, Stream, printable
from lxpy.images.tree import Tree
from lxpy.kernel.libc import prctl

INDEX = "backup/index.yaml"
CHECKSUMS = "backup/checksums"
DISK = "root.img"
MAX_DESCRIPTORS = 250  # of one message; Linux allows 253
_TEXT_BYTES = 32 << 20
_HEADER_BYTES = 16 << 20  # the map of a file with very many holes
_AFTER_END = 64 << 20
_CHUNK = 1 << 20
_REPORT_S = 0.2
_NO_LIMIT = 1 << 62
_PR_SET_PDEATHSIG = 1

Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What to unpack: the archive's directories, each with the directory it goes into.

    `plain` are custom volumes: their files lie in the directory itself. `checksums` must be there.
    `roots` and `gone` are of incremental backups: where the files are that the archive changes, and
    which members list what is gone. `streams` take what is in a storage driver's own form.
    Descriptors are numbers of those that come with the order.
    """

    targets: dict[str, str]
    plain: bool = False
    checksums: bool = False
    roots: dict[str, int] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    streams: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """What the archive turned out to hold; `backup_yaml` is that of the instance itself."""

    bytes: int = 0
    files: int = 0
    backup_yaml: str = ""
    metadata: list[str] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)


class Hashed(Stream):
    """A stream that knows the digest of all before the present member."""

    header_bytes = _HEADER_BYTES

    def __init__(self, read: Callable[[int], bytes]) -> None:
        super().__init__(read)
        self._digest = hashlib.sha256()
        self._before = self._digest
        self.start = 0

    def begin_member(self) -> None:
        """Note what the digest and the position are where the next member begins."""
        super().begin_member()
        self._before = self._digest.copy()
        self.start = self.tell()

    def said(self) -> str:
        """Return what the checksums' member has to say at this place."""
        return f"sha256 {self._before.hexdigest()} {self.start}"

    def _next(self, size: int) -> memoryview:
        part = super()._next(size)
        self._digest.update(part)
        return part


class Part(Extraction):
    """One volume or snapshot: takes the members below its directory, renamed as in an image."""

    def __init__(self, order: Order, name: str, stream: Stream) -> None:
        target = order.targets[name]
        layout = "rootfs" if order.plain else "unified"
        super().__init__(Layout("", layout, _NO_LIMIT, _NO_LIMIT, target), stream, _nothing)
        self._is_plain = order.plain
        self._root = order.roots.get(name)
        self._target = target
        self._dropped: set[str] = set()

    def take(self, reader: Reader, member: TarInfo) -> None:
        """Unpack a member. Raises BadArchive, OSError."""
        if member.isdev() and not member.isfifo():
            self._dropped.add(member.name)  # a device of another machine
        elif not (member.islnk() and member.linkname in self._dropped):
            self.member(reader, member)

    def disk(self, reader: Reader, member: TarInfo) -> None:
        """Write the disk of a block volume."""
        if not member.isreg():
            raise BadArchive(f'member "{printable(member.name)}" is no regular file')
        path = os.path.join(self._target, DISK)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            self.content(reader, member, descriptor)
            os.ftruncate(descriptor, member.size)
        finally:
            os.close(descriptor)

    def remove(self, paths: list[bytes]) -> None:
        """Remove what is gone. Raises BadArchive for a path that leaves the tree."""
        tree = self.tree("rootfs")
        assert tree is not None
        for path in paths:
            parts = [each for each in path.split(b"/") if each not in (b"", b".")]
            if not parts or b".." in parts:
                raise BadArchive(f'"{printable(os.fsdecode(path))}" cannot be deleted')
            tree.remove(os.fsdecode(b"/".join(parts)))

    def finish(self) -> None:
        """Set the times of directories."""
        for tree in self.trees.values():
            tree.finish()

    def tree(self, area: str) -> Tree | None:
        """Return the tree of an area; the files of a custom volume lie in its top."""
        if area == "rootfs" and self._root is not None and area not in self.trees:
            self.trees[area] = Tree(self._root)
        elif self._is_plain and area not in self.trees:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            self.trees[area] = Tree(os.open(self._target, flags))
        return super().tree(area)


class Unpacking:
    """The way through one archive."""

    def __init__(self, stream: Hashed, emit: Emit) -> None:
        self._stream = stream
        self._reader = Reader(stream)
        self._emit = emit
        self._told = 0.0
        self._is_checked = False
        self.found = Found()

    def index(self) -> str:
        """Return index.yaml, which comes first. Raises BadArchive."""
        member = self._reader.next()
        while member is not None and member.isdir():
            member = self._reader.next()
        if member is None or _plain(member.name) != INDEX:
            raise BadArchive("it does not begin with backup/index.yaml: it is no backup")
        return self._text(member)

    def run(self, order: Order) -> None:
        """Unpack the rest. Raises BadArchive, OSError."""
        parts = {name: Part(order, name, self._stream) for name in order.targets}
        while (member := self._reader.next()) is not None:
            self.found.files += 1
            if self._is_checked:
                raise BadArchive(f'member "{printable(member.name)}" comes after the checksums')
            self._take(order, parts, member)
            self._report()
        self._stream.drain(_AFTER_END)
        if order.checksums and not self._is_checked:
            raise BadArchive("it ends without its checksums: it is truncated")
        for name, part in parts.items():
            part.finish()
            if part.found.metadata is not None:
                self.found.metadata.append(name)
        self.found.bytes = self._stream.tell()

    def _take(self, order: Order, parts: dict[str, Part], member: TarInfo) -> None:
        name = _plain(member.name)
        if name == CHECKSUMS:
            self._check(member)
        elif name in order.gone and member.isreg():
            gone = self._text(member).encode("utf-8", "surrogateescape")
            parts[order.gone[name]].remove([each for each in gone.split(b"\0") if each])
        elif name.endswith(".bin") and order.streams:
            self._pass_on(order, name.removesuffix(".bin"), member)
        elif name.endswith(".img") and name.removesuffix(".img") in parts:
            parts[name.removesuffix(".img")].disk(self._reader, member)
        else:
            self._of_a_part(parts, name, member)

    def _pass_on(self, order: Order, name: str, member: TarInfo) -> None:
        """Write what only a storage driver understands to whoever it is for."""
        if name not in order.streams or not member.isreg():
            raise BadArchive(
                f'member "{printable(member.name)}" is of a subvolume inside another: export it '
                "without --optimized-storage"
            )
        self._emit({"stream": name})
        with os.fdopen(order.streams.pop(name), "wb", buffering=0) as file:
            self.found.streams.append(name)
            self._stream.copy(member.size, lambda part: _write_all(file.fileno(), part))

    def _of_a_part(self, parts: dict[str, Part], name: str, member: TarInfo) -> None:
        directory = next((each for each in _above(name) if each in parts), None)
        if directory is None:
            return  # a snapshot that the index does not list, or another daemon's addition
        inner = name[len(directory) + 1 :]
        if inner == "backup.yaml" and not member.isdir():
            if directory == "backup/container":
                self.found.backup_yaml = self._text(member)
            return
        member.name = inner
        if member.islnk():
            link = _plain(member.linkname)
            if not link.startswith(f"{directory}/"):
                raise BadArchive(f'member "{printable(name)}" is a hard link out of its volume')
            member.linkname = link[len(directory) + 1 :]
        parts[directory].take(self._reader, member)

    def _check(self, member: TarInfo) -> None:
        expected = self._stream.said()
        said = self._text(member).strip()
        if said != expected:
            raise BadArchive("its checksum is wrong: it was altered or damaged on its way")
        self._is_checked = True

    def _text(self, member: TarInfo) -> str:
        if not member.isreg() or member.sparse is not None:
            raise BadArchive(f'member "{printable(member.name)}" is no regular file')
        if member.size > _TEXT_BYTES:
            raise BadArchive(f'member "{printable(member.name)}" is larger than 32 MiB')
        content = bytearray()
        self._stream.copy(member.size, content.extend)
        return content.decode("utf-8", "surrogateescape")

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._told >= _REPORT_S:
            self._told = now
            self._emit({"bytes": self._stream.tell()})


def _plain(name: str) -> str:
    """Return a member's name without "./" and slashes at its ends."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _above(name: str) -> list[str]:
    """Return the first two and the first three parts of a name, and the name itself."""
    parts = name.split("/")
    return ["/".join(parts[:2]), "/".join(parts[:3])]


def _write_all(descriptor: int, part: memoryview) -> None:
    while part:
        part = part[os.write(descriptor, part) :]


def _nothing() -> None:
    """Report nothing: the archive as a whole is reported on."""


def perform(read: Callable[[int], bytes], control: socket.socket, emit: Emit) -> None:
    """Unpack, telling index, progress and outcome to `emit`."""
    try:
        work = Unpacking(Hashed(read), emit)
        emit({"index": work.index()})
        order = _receive(control)
        if order is None:
            return  # it is not wanted
        work.run(_enclose(order))
        emit({"done": {name: getattr(work.found, name) for name in Found.__slots__}})
    except (BadArchive, UnicodeError) as error:
        emit({"error": str(error), "kind": "archive"})
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
        emit({"error": text, "kind": "host", "errno": error.errno or 0})


def _receive(control: socket.socket) -> Order | None:
    """Return the order that comes as a line, its descriptors with the first byte."""
    data, descriptors, _, _ = socket.recv_fds(control, 1, MAX_DESCRIPTORS)
    if not data:
        return None
    order = Order(**json.loads(data + control.makefile("rb").readline()))
    for numbers in (order.roots, order.streams):
        numbers.update({name: descriptors[n] for name, n in numbers.items()})
    return order


def _enclose(order: Order) -> Order:
    """Make what is above all targets the root of this process, as a second wall."""
    if os.geteuid() != 0 or not order.targets:
        return order
    root = os.path.commonpath(order.targets.values())
    os.chroot(root)
    os.chdir("/")
    targets = {
        name: os.path.join("/", os.path.relpath(path, root)) for name, path in order.targets.items()
    }
    return dataclasses.replace(order, targets=targets)


def main() -> None:
    """Unpack standard input; the argument is the number of the control socket."""
    prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody would read the outcome
    os.umask(0)
    control = socket.socket(fileno=int(sys.argv[1]))

    def emit(message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    perform(lambda size: os.read(0, size), control, emit)


if __name__ == "__main__":
    main()
