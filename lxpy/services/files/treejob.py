"""What the programs that pack and unpack trees of a guest's files share.

Each is one short process per tree, and not part of the daemon's, so that thousands of small files
never delay a request. They run on Python's own library alone. What fails is told on standard
error as `{"error": TEXT, "class": NAME}`, and the status is 1.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

from lxpy.errors import BadRequest, Failed, LxpyError
from lxpy.kernel.libc import prctl
from lxpy.runtime.guestfiles import GuestFiles
from lxpy.runtime.guestpaths import explain
from lxpy.runtime.owners import Owners

_PR_SET_PDEATHSIG = 1
_CAPABILITY = "security.capability"
# vfs_cap_data: revisions 2 and 3, the latter with the id of its user namespace's root.
_REVISION, _REVISION_2, _REVISION_3 = 0xFF000000, 0x02000000, 0x03000000
_CAPABILITY_2_BYTES, _CAPABILITY_3_BYTES = 20, 24


@dataclass(frozen=True, slots=True)
class Job:
    """The directory that it is about; `root` is an inherited descriptor of the guest's "/".

    `uids` and `gids` are the spans of an `Owners`.
    """

    root: int
    path: str
    uids: list[tuple[int, int, int]]
    gids: list[tuple[int, int, int]]

    def files(self) -> GuestFiles:
        """Return the files that the job is about."""
        spans = (tuple((a, b, c) for a, b, c in each) for each in (self.uids, self.gids))
        return GuestFiles(self.root, Owners(*spans))


def is_wanted(name: str) -> bool:
    """Tell whether an extended attribute goes with a file."""
    return name.startswith("user.") or name == _CAPABILITY


def inside(name: str, value: bytes, owners: Owners) -> bytes:
    """Return an attribute as the guest has it: capabilities without their namespace's root.

    Those of another namespace's root are none for the guest: b"".
    """
    if name != _CAPABILITY or len(value) != _CAPABILITY_3_BYTES:
        return value
    magic, root = struct.unpack_from("<I", value)[0], struct.unpack_from("<I", value, 20)[0]
    if magic & _REVISION != _REVISION_3 or root != owners.root[0]:
        return b""
    return struct.pack("<I", _REVISION_2 | magic & ~_REVISION) + value[4:_CAPABILITY_2_BYTES]


def outside(name: str, value: bytes, owners: Owners) -> bytes:
    """Return an attribute as it is set for the guest. Raises ValueError for broken capabilities."""
    if name != _CAPABILITY:
        return value
    magic = struct.unpack_from("<I", value)[0] if len(value) == _CAPABILITY_2_BYTES else 0
    if magic & _REVISION != _REVISION_2:
        raise ValueError("a file's capabilities are not of revision 2")
    if not owners.uids or owners.root[0] == 0:
        return value
    head = struct.pack("<I", _REVISION_3 | magic & ~_REVISION)
    return head + value[4:] + struct.pack("<I", owners.root[0])


def carry_out(work: Callable[[GuestFiles, str], None]) -> None:
    """Do the work of a program: the job is its only argument."""
    prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, signal.SIGKILL)
    os.umask(0)
    try:
        _carry_out(work, Job(**json.loads(sys.argv[1])))
    except LxpyError as error:
        print(json.dumps({"error": str(error), "class": type(error).__name__}), file=sys.stderr)
        sys.exit(1)


def _carry_out(work: Callable[[GuestFiles, str], None], job: Job) -> None:
    try:
        work(job.files(), job.path)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"Invalid archive: {error}") from error
    except BrokenPipeError:
        raise Failed("Nobody reads the archive any more") from None
    except OSError as error:
        raise explain(error, job.path) from error
