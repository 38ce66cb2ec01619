"""A volume's files in one tree, without a place in the file system: a mount nobody else sees.

The mount has no name; it lives as long as its descriptor, and a daemon that dies leaves none.
Owners are as on disk (the instance's own ids). Needs root. Source: fsopen(2), open_tree(2).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from lxpy.kernel import mounts, overlay
from lxpy.storage.volume import Layers, Rootfs


def open_tree(rootfs: Rootfs, *, writable: bool = False) -> int:
    """Return a descriptor of the top of the files; blocking, the caller closes it.

    `writable` is for volumes that nobody else has mounted. Below it, use openat2 with
    RESOLVE_IN_ROOT: the links in there are the guest's. Programs get "/proc/self/fd/N".
    Raises OSError.
    """
    fd = _stacked(rootfs) if isinstance(rootfs, Layers) else mounts.clone_tree(rootfs.path)
    if writable and not (isinstance(rootfs, Layers) and rootfs.root is None):
        return fd
    try:
        mounts.set_attributes(fd, "view", mounts.RDONLY)
    except OSError:
        os.close(fd)
        raise
    return fd


def beside(rootfs: Rootfs) -> Rootfs:
    """Return a volume's files for reading while somebody else writes them, or is about to.

    The layer that is written to becomes the topmost of those that are read: overlayfs lets only
    one mount have it for writing. What is changed meanwhile may be seen or not; of a file of the
    image with several names, only the one it was written by shows the change.
    """
    if isinstance(rootfs, Layers) and rootfs.root is not None:
        return Layers((f"{rootfs.root}/upper", *rootfs.lower), None)
    return rootfs


@contextmanager
def opened(rootfs: Rootfs, *, writable: bool = False) -> Iterator[int]:
    """Open the files for the length of a block; see `open_tree`."""
    fd = open_tree(rootfs, writable=writable)
    try:
        yield fd
    finally:
        os.close(fd)


def _stacked(layers: Layers) -> int:
    if layers.root is None and len(layers.lower) == 1:
        return mounts.clone_tree(layers.lower[0])
    if layers.root is None:
        return _stack(layers, overlay.read_only_options())
    try:
        # As the runtime mounts them: another set would not accept the index of hard links.
        return _stack(layers, overlay.options())
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return _stack(layers, overlay.options(index=False))


def _stack(layers: Layers, options: mounts.Options) -> int:
    """Mount an overlay. Options are at most 255 bytes long, so layers are named by descriptor."""
    opened = [os.open(each, os.O_PATH | os.O_DIRECTORY) for each in layers.lower]
    fs = mounts.start("overlay")
    try:
        _add_lower(fs, [f"/proc/self/fd/{each}" for each in opened])
        if layers.root is not None:
            opened.append(os.open(layers.root, os.O_PATH | os.O_DIRECTORY))
            mounts.configure(fs, "upperdir", f"/proc/self/fd/{opened[-1]}/upper")
            mounts.configure(fs, "workdir", f"/proc/self/fd/{opened[-1]}/work")
        for key, value in options.items():
            mounts.configure(fs, key, value)
        return mounts.finish(fs, "overlay", mounts.NODEV | mounts.NOSUID)
    finally:
        for each in (fs, *opened):
            os.close(each)


def _add_lower(fs: int, paths: list[str]) -> None:
    try:
        for path in paths:
            mounts.configure(fs, "lowerdir+", path)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        mounts.configure(fs, "lowerdir", ":".join(paths))  # before Linux 6.8
