"""Volumes as streams: what changed since a snapshot, in the form `btrfs send` has for it.

Source: btrfs-send(8), btrfs-receive(8).
"""

from __future__ import annotations

from pathlib import Path

from lxpy.errors import Failed, NotSupported
from lxpy.kernel import btrfs
from lxpy.programs import run
from lxpy.storage.drivers import btrfs_subvolumes, layout
from lxpy.storage.drivers.btrfs_subvolumes import opened
from lxpy.storage.volume import Volume
from lxpy.threads import in_thread


async def send(snapshot: Path, since: Path | None, descriptor: int) -> None:
    """Write a read-only subvolume, or what changed since another. Raises NotSupported, Failed."""
    await in_thread(_check_alone, snapshot)
    parent = ("-p", str(since)) if since is not None else ()
    await run("btrfs", "send", "-q", *parent, str(snapshot), stdout=descriptor, timeout_s=None)


async def receive(new: Path, volume: Volume, descriptor: int) -> None:
    """Make the subvolume `new` of a stream; of a snapshot it can be the parent of the next one.

    Raises Failed.
    """
    arriving = layout.unfinished(new)
    await in_thread(arriving.mkdir, 0o700)
    try:
        await run("btrfs", "receive", "-q", str(arriving), stdin=descriptor, timeout_s=None)
        await in_thread(_take, arriving, new, bool(volume.snapshot))
    finally:
        await in_thread(btrfs_subvolumes.discard, arriving)


def _take(arriving: Path, new: Path, read_only: bool) -> None:
    """Give what has arrived its place. A read-only snapshot of it is known by the same UUID."""
    found = list(arriving.iterdir())
    if len(found) != 1:
        raise Failed(f"The stream had {len(found)} subvolumes instead of one")
    with opened(found[0]) as source, opened(new.parent) as parent:
        btrfs.snapshot(parent, new.name, source, read_only=read_only)


def _check_alone(snapshot: Path) -> None:
    with opened(snapshot) as top:
        inner = btrfs.children(top, btrfs.subvolume_id(top))
    if inner:
        paths = ", ".join(path for _, path in inner[:3])
        raise NotSupported(
            f"The stream of a volume has no room for the subvolumes in it ({paths}): export it as "
            "a tarball instead"
        )
