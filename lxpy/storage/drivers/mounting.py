"""Mounting the file systems of volumes at their places below a pool's directory."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lxpy.errors import Failed
from lxpy.programs import run
from lxpy.storage import files
from lxpy.storage.drivers import layout
from lxpy.storage.drivers.base import Quiet, quiet_already
from lxpy.storage.volume import Pool, Volume
from lxpy.threads import in_thread

#: below a pool's directory, where volumes are mounted that are being made
NEW = ".new"
AREAS = (*layout.VOLUMES, *layout.SNAPSHOTS, "images", NEW)


async def mount(kind: str, device: str, place: Path, options: str) -> None:
    """Mount a file system; may be repeated. Raises Failed."""
    if await in_thread(os.path.ismount, place):
        return
    await in_thread(_make_place, place)
    words = ("-o", options) if options else ()
    try:
        await run("mount", "-t", kind, *words, device, str(place))
    except BaseException:
        await unmount(place)
        raise


async def unmount(place: Path) -> None:
    """Take away what `mount` made; may be repeated. Raises Failed when somebody is in there."""
    if await in_thread(os.path.ismount, place):
        await run("umount", str(place), timeout_s=None)
    await in_thread(_remove_place, place)


async def unmount_below(directory: Path) -> None:
    """Unmount everything below a directory. Guests that run keep what they have. Raises Failed."""
    for place in await in_thread(_mounts_below, directory):
        await unmount(place)


async def sweep(directory: Path) -> None:
    """Unmount what an earlier run has left below a directory, but for what somebody looks into."""
    for place in await in_thread(_mounts_below, directory):
        try:
            await unmount(place)
        except Failed:
            pass


@asynccontextmanager
async def mounted(
    kind: str, device: str, place: Path, options: str = "", *, sealed: bool = False
) -> AsyncIterator[Path]:
    """Have a file system mounted for the length of a block, unless it is anyway.

    Unless it is `sealed`, it is written out at the end. Raises Failed.
    """
    if await in_thread(os.path.ismount, place):
        yield place
        return
    await mount(kind, device, place, options)
    try:
        yield place
        if not sealed:
            await in_thread(files.syncfs, place)
    finally:
        await unmount(place)


@asynccontextmanager
async def written_out(pool: Pool, volume: Volume, quiet: Quiet) -> AsyncIterator[None]:
    """Let nobody write during the block; what can be written out before is so."""
    place = layout.volume_path(pool, volume)
    if quiet is not quiet_already and await in_thread(os.path.ismount, place):
        await in_thread(files.syncfs, place)
    async with quiet():
        yield


def check_image(top: Path) -> None:
    """Raise Failed unless an unpacked image has a rootfs."""
    rootfs = top / "rootfs"
    if rootfs.is_symlink() or not rootfs.is_dir():
        raise Failed("Invalid image: its rootfs is not a directory")


def make_directories(path: Path) -> None:
    """Make a pool's directories, for nothing to be mounted at yet (blocks)."""
    path.mkdir(mode=0o711, parents=True, exist_ok=True)
    for area in AREAS:
        layout.mkdir_private(path / area)


def remove_directories(path: Path) -> None:
    """Remove the directories that volumes were mounted at: none has a file in it (blocks)."""
    for top, _, _ in os.walk(path, topdown=False):
        layout.remove_if_empty(Path(top))


def _mounts_below(directory: Path) -> list[Path]:
    """Return what is mounted below a directory, the innermost first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    targets = [line.split(" ")[4] for line in lines]
    return [Path(each) for each in reversed(targets) if each.startswith(f"{directory}/")]


def _make_place(place: Path) -> None:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)


def _remove_place(place: Path) -> None:
    """Remove a place, and the directory of a volume's snapshots with the last of them."""
    try:
        place.rmdir()
    except FileNotFoundError:
        pass
    if place.parent.parent.name in layout.SNAPSHOTS:
        layout.remove_if_empty(place.parent)
