"""The program that unpacks an archive: one short, single-threaded process per image.

It is not part of the daemon's process, so that megabytes of decoding never delay a request and a
hostile archive meets nothing but this directory. Runs on Python's own library alone. Takes one
JSON object as its argument (see `Job`), writes JSON lines: `{"percent": 40}` on the way, at
the end `{"done": {...}}` or `{"error": TEXT, "kind": "archive" | "limit" | "host"}`.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from tarfile import TarInfo
from typing import cast

from lxpy.images import attributes
from lxpy.images.decompress import Source
from lxpy.images.tarstream import BadArchive, Reader, Stream, printable
from lxpy.images.tree import Attributes, Tree
from lxpy.kernel.libc import prctl

_PATH_BYTES = 4095
_METADATA_BYTES = 1 << 20
NODES_DROPPED = ("dev/", "lib/udev/devices/", "usr/lib/udev/devices/")
_AFTER_END = 64 << 20  # padding that is read for the checksums behind it
_REPORT_S = 0.2
_PR_SET_PDEATHSIG = 1
_MTIME_LIMIT_NS = 1 << 62


class LimitReached(Exception):
    """The archive holds more files or bytes than an image may."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to do.

    `layout`: "unified" (metadata.yaml, templates/, rootfs/), "metadata" (the first two of them)
    or "rootfs" (the tree itself). Without `target` nothing is written; `whole` says whether to
    check the archive to its end or to stop when metadata and kind are known.
    """

    source: str
    layout: str
    max_bytes: int
    max_files: int
    target: str | None = None
    whole: bool = True


@dataclass(slots=True)
class Found:
    """What the archive turned out to hold."""

    metadata: str | None = None
    templates: int = 0
    rootfs: bool = False
    disk_image: bool = False
    files: int = 0
    bytes: int = 0


class Extraction:
    """Goes through the members of one archive."""

    def __init__(self, job: Job, stream: Stream, report: Callable[[], None]) -> None:
        self._job = job
        self._stream = stream
        self._report = report
        self.found = Found()
        self.trees: dict[str, Tree] = {}

    def run(self) -> None:
        """Unpack or check everything. Raises BadArchive, LimitReached or OSError."""
        reader = Reader(self._stream)
        member = reader.next()
        while member is not None:
            self._count(reader.stored(member))
            self.member(reader, member)
            self._report()
            if not self._job.whole and self._is_known():
                return
            member = reader.next()
        self._stream.drain(_AFTER_END)
        for tree in self.trees.values():
            tree.finish()

    def _is_known(self) -> bool:
        return self.found.metadata is not None and (
            self._job.layout == "metadata" or self.found.rootfs or self.found.disk_image
        )

    def _count(self, size: int) -> None:
        self.found.files += 1
        self.found.bytes += max(size, 0)
        if self.found.files > self._job.max_files:
            raise LimitReached(f"it holds more than {self._job.max_files} files")
        if self.found.bytes > self._job.max_bytes:
            raise LimitReached(f"it holds more than {self._job.max_bytes} bytes")

    def member(self, reader: Reader, member: TarInfo) -> None:
        """Unpack or check one member. Raises BadArchive, LimitReached, OSError."""
        area, path = self._route(member.name, member.name)
        if area == "metadata":
            self._metadata(reader, member)
        elif area == "templates":
            self._template(reader, member, path)
        elif area == "rootfs":
            self.found.rootfs = True
            self._rootfs(reader, member, path)
        elif area == "image":
            self.found.disk_image = True
            if self._job.target is not None:
                raise BadArchive("it is the disk image of a virtual machine, not a container")

    def _route(self, name: str, member: str) -> tuple[str, str]:
        """Say where a name belongs, and its path there. Raises BadArchive for one that leaves."""
        if "\0" in name or len(os.fsencode(name)) > _PATH_BYTES:
            raise BadArchive(f'member "{printable(member)}" has an impossible name')
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise BadArchive(f'member "{printable(member)}" leaves the image by ".."')
        absolute = name.startswith("/")
        if self._job.layout == "rootfs":
            if absolute:
                raise BadArchive(f'member "{printable(member)}" has an absolute path')
            return "rootfs", "/".join(parts)
        top = parts[0] if parts else ""
        if top == "metadata.yaml" and len(parts) == 1:
            return "metadata", top
        if top == "templates":
            return "templates", "/".join(parts[1:])
        if top == "rootfs":
            is_it = self._job.layout == "unified"  # else some tools' left-overs beside metadata
            return ("rootfs" if is_it else ""), "/".join(parts[1:])
        if self._job.layout == "unified" and top == "rootfs.img" and len(parts) == 1:
            return "image", top
        if absolute and top:
            # "/rootfs/..." is harmless, and some programs write it
            raise BadArchive(f'member "{printable(member)}" has an absolute path')
        return "", ""

    def _metadata(self, reader: Reader, member: TarInfo) -> None:
        if not member.isreg() or member.sparse is not None:
            raise BadArchive("metadata.yaml is not a regular file")
        if member.size > _METADATA_BYTES:
            raise LimitReached("metadata.yaml is larger than 1 MiB")
        content = bytearray()
        self._stream.copy(member.size, content.extend)
        self.found.metadata = content.decode("utf-8", "replace")
        if self._job.target is not None:
            path = os.path.join(self._job.target, "metadata.yaml")
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with open(os.open(path, flags, 0o644), "wb") as file:
                file.write(content)

    def _template(self, reader: Reader, member: TarInfo, path: str) -> None:
        if not path or member.isdir():
            if path:
                raise BadArchive(f'member "{printable(member.name)}": templates/ has directories')
            return
        if not member.isreg() or "/" in path or member.sparse is not None:
            # The daemon reads these: a link here could show it any file of the host.
            raise BadArchive(f'member "{printable(member.name)}" is not a regular file')
        if member.size > _METADATA_BYTES:
            raise LimitReached(f'member "{printable(member.name)}" is larger than 1 MiB')
        self.found.templates += 1
        plain = Attributes(os.geteuid(), os.getegid(), 0o644, _mtime(member), {})
        tree = self.tree("templates")
        if tree is not None:
            tree.file(path, plain, lambda descriptor: self.content(reader, member, descriptor))

    def _rootfs(self, reader: Reader, member: TarInfo, path: str) -> None:
        if member.isdev() and not member.isfifo():
            if not path.startswith(NODES_DROPPED):
                raise BadArchive(f'member "{printable(member.name)}" is a device node')
            return
        if not path and not member.isdir():
            raise BadArchive("the rootfs is not a directory")
        tree = self.tree("rootfs")
        target = self._link_target(member) if member.islnk() else ""
        if tree is None:
            self._map(member, reader.stored(member))
            return
        try:
            if member.islnk():
                self._hard_link(tree, path, target)
            elif member.isdir():
                tree.directory(path, _attributes(member))
            elif member.issym():
                tree.symlink(path, member.linkname, _attributes(member))
            elif member.isfifo():
                tree.fifo(path, _attributes(member))
            elif member.isreg():
                tree.file(path, _attributes(member), lambda fd: self.content(reader, member, fd))
            else:
                raise BadArchive(f'member "{printable(member.name)}" is of an unknown type')
        except (ValueError, OverflowError) as error:
            raise BadArchive(f'member "{printable(member.name)}": {error}') from error
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.ENOENT):
                raise BadArchive(f'member "{printable(member.name)}": {error.strerror}') from error
            raise

    def _hard_link(self, tree: Tree, path: str, target: str) -> None:
        if path != target and not target.startswith(NODES_DROPPED):
            tree.link(path, target)

    def _link_target(self, member: TarInfo) -> str:
        area, target = self._route(member.linkname, member.name)
        if area != "rootfs" or not target:
            raise BadArchive(
                f'member "{printable(member.name)}" is a hard link out of the image, '
                f'to "{printable(member.linkname)}"'
            )
        return target

    def content(self, reader: Reader, member: TarInfo, descriptor: int) -> None:
        """Write a regular file's content, its holes left out."""
        if member.sparse is None:
            self._stream.copy(member.size, lambda part: _write(descriptor, part))
            return
        for offset, size in self._map(member, reader.stored(member)):
            os.lseek(descriptor, offset, os.SEEK_SET)
            self._stream.copy(size, lambda part: _write(descriptor, part))
        os.ftruncate(descriptor, member.size)

    def _map(self, member: TarInfo, stored: int) -> list[tuple[int, int]]:
        """Return where the pieces of a sparse file go: in order, inside the file, all stored."""
        # typeshed says bytes; tarfile makes it a list of pairs
        pieces = cast("list[tuple[int, int]]", member.sparse or [])
        pieces = [each for each in pieces if each[1] != 0]  # GNU tar fills its table with (0, 0)
        end = total = 0
        for offset, size in pieces:
            if offset < end or size < 0:
                break
            end, total = offset + size, total + size
        else:
            if end <= member.size and total <= stored:
                return pieces
        raise BadArchive(f'member "{printable(member.name)}" has a damaged map of its holes')

    def tree(self, area: str) -> Tree | None:
        """Return the tree that an area is unpacked into, None where nothing is written."""
        if self._job.target is None:
            return None
        if area not in self.trees:
            path = os.path.join(self._job.target, area)
            os.makedirs(path, 0o755, exist_ok=True)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            self.trees[area] = Tree(os.open(path, flags))
        return self.trees[area]


def _attributes(member: TarInfo) -> Attributes:
    xattrs = attributes.from_pax(member.pax_headers) if member.pax_headers else {}
    mode = stat.S_IMODE(member.mode)
    return Attributes(member.uid, member.gid, mode, _mtime(member), xattrs)


def _mtime(member: TarInfo) -> int:
    value = member.pax_headers.get("mtime") if member.pax_headers else None
    try:
        seconds, _, fraction = (value or str(int(member.mtime))).partition(".")
        found = int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0"))
        return max(-_MTIME_LIMIT_NS, min(found, _MTIME_LIMIT_NS))
    except (ValueError, OverflowError) as error:
        raise BadArchive(f'member "{printable(member.name)}" has no valid time') from error


def _write(descriptor: int, part: memoryview) -> None:
    while part:
        part = part[os.write(descriptor, part) :]


def perform(job: Job, emit: Callable[[dict[str, object]], None]) -> None:
    """Do the job, telling progress and outcome to `emit`."""
    try:
        source = Source(job.source)
    except BadArchive as error:
        emit({"error": str(error), "kind": "archive"})
        return
    except OSError as error:
        emit({"error": _text(error), "kind": "host", "errno": error.errno or 0})
        return
    last = time.monotonic()

    def report() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _REPORT_S:
            last = now
            emit({"percent": source.percent()})

    try:
        extraction = Extraction(_enclose(job), Stream(source.read), report)
        try:
            extraction.run()
        except BadArchive as error:
            # A decompressor that fails is the cause of an archive that ends early.
            raise BadArchive(source.failure() or str(error)) from error
        if job.whole and (failure := source.failure()):
            raise BadArchive(failure)
        found = extraction.found
        emit({"done": {name: getattr(found, name) for name in Found.__slots__}})
    except (BadArchive, UnicodeError) as error:
        emit({"error": str(error), "kind": "archive"})
    except LimitReached as error:
        emit({"error": str(error), "kind": "limit"})
    except OSError as error:
        emit({"error": _text(error), "kind": "host", "errno": error.errno or 0})
    finally:
        source.close()


def _enclose(job: Job) -> Job:
    """Make the target the root of this process, as a second wall around the first."""
    if job.target is None or os.geteuid() != 0:
        return job
    os.chroot(job.target)
    os.chdir("/")
    return dataclasses.replace(job, target="/")


def _text(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def main() -> None:
    """Run the job given as the only argument."""
    prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody would read the outcome
    os.umask(0)
    job = Job(**json.loads(sys.argv[1]))

    def emit(message: dict[str, object]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    perform(job, emit)


if __name__ == "__main__":
    main()
