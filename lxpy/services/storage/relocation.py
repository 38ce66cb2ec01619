"""A directory of the daemon that lies elsewhere: a link is in its place then.

Where it lies is copied whole and then changed; what a crash leaves, `recover` finishes or removes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lxpy.errors import Failed
from lxpy.programs import run_to_end
from lxpy.storage.files import fsync_directory
from lxpy.threads import in_thread


def _old(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


def _new(place: Path) -> Path:
    return place.with_name(f".{place.name}.new")


def recover(place: Path) -> None:
    """Make a place whole again after a crash. Blocking."""
    if not os.path.lexists(place):
        # The old one is complete until the link is there; a new one is complete when that is gone.
        for each in (_old(place), _new(place)):
            if os.path.lexists(each):
                os.rename(each, place)
                break
    for each in (_old(place), _new(place)):
        _remove(each)


async def move_out(place: Path, target: Path) -> None:
    """Have a place lie at `target`, where nothing else is. Raises Failed, and it stays."""
    await _copy(place, target)
    await in_thread(_link, place, target)


async def move_home(place: Path) -> None:
    """Have a place be a directory again. Raises Failed, and it stays."""
    target = place.readlink()
    await _copy(target, _new(place))
    await in_thread(_unlink, place, target)


def is_at(place: Path, target: Path) -> bool:
    """Tell whether that is where it lies. Blocking."""
    return place.is_symlink() and place.readlink() == target


async def _copy(source: Path, target: Path) -> None:
    """Copy a tree and write it out; what `target` has had is removed."""
    part = target.with_name(f"{target.name}.part")
    for each in (part, target):
        await in_thread(_remove, each)
    try:
        await in_thread(part.mkdir, 0o700)
        if await in_thread(source.exists):
            await run_to_end("cp", "-a", "--reflink=auto", f"{source}/.", f"{part}/")
        await run_to_end("sync", "-f", str(part))
        await in_thread(os.rename, part, target)
    except (OSError, Failed) as error:
        await in_thread(_remove, part)
        raise Failed(f"Cannot move {source} to {target}: {error}") from error


def _link(place: Path, target: Path) -> None:
    old = _old(place)
    if os.path.lexists(place):
        os.rename(place, old)
    place.symlink_to(target)
    fsync_directory(place.parent)
    _remove(old)


def _unlink(place: Path, target: Path) -> None:
    place.unlink()
    os.rename(_new(place), place)
    fsync_directory(place.parent)
    _remove(target)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
