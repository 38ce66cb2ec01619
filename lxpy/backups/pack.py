"""The program that packs trees into a tar stream on its standard output: one short process.

Runs on Python's own library alone, so that it starts at once and no thread of the daemon is busy.
Its standard input is one JSON object (see `Job`); what goes wrong is one line on standard error.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from lxpy.backups.changes import compare
from lxpy.backups.tarball import Changed, Tarball, Walk, attributes_of
from lxpy.kernel.libc import prctl

_PR_SET_PDEATHSIG = 1
_LINKED = (stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO)


@dataclass(frozen=True, slots=True)
class Text:
    """A small file: its name in the archive, and its content."""

    name: str
    content: str


@dataclass(frozen=True, slots=True)
class File:
    """A file or a disk, open as `descriptor`."""

    name: str
    descriptor: int


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory and all that is in it, open as `descriptor`.

    With `since`, the same tree at an earlier time, only what has changed; what is gone from it
    goes into a member named `gone`, as paths that each end with a NUL byte.
    """

    name: str
    descriptor: int
    since: int | None = None
    gone: str = ""


Part = Text | File | Directory


@dataclass(frozen=True, slots=True)
class Job:
    """The members of an archive in their order; `checksums` adds the digest of them all."""

    parts: list[Part]
    time_ns: int
    checksums: bool = True

    def dump(self) -> bytes:
        """Return the job as the program reads it."""
        parts = [[type(each).__name__, *(getattr(each, a) for a in each.__slots__)]
                 for each in self.parts]  # fmt: skip
        return json.dumps([parts, self.time_ns, self.checksums]).encode()

    @staticmethod
    def load(data: bytes) -> Job:
        """Return the job that `dump` has made."""
        parts, time_ns, checksums = json.loads(data)
        kinds = {each.__name__: each for each in (Text, File, Directory)}
        return Job([kinds[kind](*values) for kind, *values in parts], time_ns, checksums)

    @property
    def descriptors(self) -> list[int]:
        """What the program has to inherit."""
        found: list[int] = []
        for each in self.parts:
            if isinstance(each, File):
                found.append(each.descriptor)
            elif isinstance(each, Directory):
                found += [each.descriptor, *([] if each.since is None else [each.since])]
        return found


@dataclass(slots=True)
class Packing:
    """The work on one job."""

    tarball: Tarball
    job: Job
    _links: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def run(self) -> None:
        """Write everything. Raises OSError, Changed."""
        for part in self.job.parts:
            if isinstance(part, Text):
                content = part.content.encode("utf-8", "surrogateescape")
                self.tarball.text(part.name, content, self.job.time_ns)
            elif isinstance(part, File):
                self.tarball.file(part.name, part.descriptor)
            elif part.since is None:
                self._links.clear()
                self._whole(part)
            else:
                self._links.clear()
                self._changes(part, part.since)
        if self.job.checksums:
            self.tarball.checksums()
        self.tarball.end()

    def _whole(self, part: Directory) -> None:
        top = os.fsencode(part.name)
        for path, descriptor, entries in Walk(part.descriptor):
            here = top + b"/" + path if path else top
            self.tarball.directory(here, os.fstat(descriptor), attributes_of(descriptor))
            self._nodes(here, entries)

    def _nodes(self, above: bytes, entries: Iterable[tuple[bytes, os.stat_result]]) -> None:
        for name, found in entries:
            if not stat.S_ISDIR(found.st_mode):
                self._node(above + b"/" + name, name, found)

    def _node(self, path: bytes, here: bytes, found: os.stat_result) -> None:
        """Add an entry of the working directory, as a link where its file has been before."""
        if found.st_nlink > 1 and stat.S_IFMT(found.st_mode) in _LINKED:
            key = (found.st_dev, found.st_ino)
            first = self._links.setdefault(key, path)
            if first is not path:
                self.tarball.link(path, first, found)
                return
        self.tarball.node(path, here, found)

    def _changes(self, part: Directory, since: int) -> None:
        changes = compare(since, part.descriptor)
        gone = b"".join(path + b"\0" for path in changes.gone)
        self.tarball.text(part.gone, gone, self.job.time_ns)
        changed = set(changes.changed)
        top = os.fsencode(part.name)
        for path, descriptor, entries in Walk(part.descriptor):
            here = top + b"/" + path if path else top
            if path in changed:
                self.tarball.directory(here, os.fstat(descriptor), attributes_of(descriptor))
            below = path + b"/" if path else b""
            self._nodes(here, (each for each in entries if below + each[0] in changed))


def main() -> None:
    """Do the job on standard input."""
    prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody would read the stream
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    job = Job.load(sys.stdin.buffer.read())
    output = os.dup(1)
    try:
        Packing(Tarball(output), job).run()
    except Changed as error:
        sys.exit(f"{error}")
    except OSError as error:
        name = os.fsdecode(error.filename) if error.filename else "reading"
        sys.exit(f"{name}: {error.strerror}")


if __name__ == "__main__":
    main()
