"""Copying the writable layer of an overlay, such that the copy shows what the original does.

    upper/        what the guest wrote; trusted.overlay.* attributes tie it to the image below
    work/index/   a link to each file of `upper` that began in the image, named by the image's inode

A file of the image that has several names is written through one of them: only the index tells
that the others show the new content, too. So the index is copied along with its hard links; but
not its directories (they name inodes of the original's upper) nor what names that upper itself:
overlayfs makes these anew, and would refuse a mismatch (ESTALE). Seen on Linux 6.18.
Source: kernel docs, "Overlay Filesystem", "Index", "NFS export".
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from lxpy.kernel import overlay
from lxpy.storage import files, view
from lxpy.storage.volume import Layers


def settle_copy(new: Path) -> None:
    """Make a copy of upper/ and work/ on the same image one that overlayfs accepts."""
    _forget(new / "upper", overlay.attribute("uuid"))
    index = new / "work" / "index"
    if not index.is_dir():
        return
    _forget(index, overlay.attribute("upper"))
    with os.scandir(index) as entries:
        for entry in list(entries):
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                os.rmdir(entry.path)
            elif stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
                os.unlink(entry.path)  # a whiteout: a file of the image that has no name left


def settle_elsewhere(new: Path) -> None:
    """Make a copy of upper/ alone fit another copy of what is below it."""
    _forget(new / "upper", overlay.attribute("uuid"))
    files.forget_lower(new / "upper")


def complete_links(layers: Layers) -> None:
    """Give every name of a changed file to the writable layer, so that it needs no index.

    Nobody else has the layer mounted. Where a changed file has names that exist below only, all
    files are looked at.
    """
    assert layers.root is not None
    root = Path(layers.root)
    changed = _inodes_with_names_below(root)
    if not changed:
        return
    with view.opened(layers, writable=True) as tree:
        merged = {
            os.stat(name, dir_fd=tree, follow_symlinks=False).st_ino
            for name in _names_of(root / "upper", changed)
        }
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        for _, _, names, directory in os.fwalk(".", dir_fd=tree, follow_symlinks=False):
            for name in names:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if status.st_nlink > 1 and status.st_ino in merged:
                    # To open it for writing links this name to the changed file, too.
                    os.close(os.open(name, flags, dir_fd=directory))


def _inodes_with_names_below(root: Path) -> set[int]:
    index = root / "work" / "index"
    if not index.is_dir():
        return set()
    with os.scandir(index) as entries:
        return {entry.inode() for entry in entries if _has_names_below(entry)}


def _names_of(upper: Path, inodes: set[int]) -> list[str]:
    """Return one path, relative to `upper`, of each inode that has one there."""
    found: dict[int, str] = {}
    for top, _, names, directory in os.fwalk(upper, follow_symlinks=False):
        for name in names:
            inode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino
            if inode in inodes:
                found.setdefault(inode, os.path.relpath(os.path.join(top, name), upper))
    return list(found.values())


def _has_names_below(entry: os.DirEntry[str]) -> bool:
    """Whether a changed file has names that exist in the image only."""
    found = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        return False
    nlink = overlay.attribute("nlink")
    try:
        value = os.getxattr(entry.path, nlink, follow_symlinks=False).decode()
    except OSError as error:
        if error.errno == errno.ENODATA:
            return False
        raise
    match = re.fullmatch(r"([UL])([+-]\d+)", value)
    # "U+n": the guest sees n names more than the upper inode has links, one of which is the index.
    return match is None or match[1] == "L" or int(match[2]) + 1 > 0


def _forget(path: Path, attribute: str) -> None:
    try:
        os.removexattr(path, attribute, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM):
            raise
