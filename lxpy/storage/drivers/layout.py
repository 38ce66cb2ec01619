"""The directories of a pool on a plain directory, and the blocking work on them.

What is being made has a name that begins with `.new-`, and gets its own by one rename.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lxpy import doctor
from lxpy.errors import BadRequest, Conflict, Failed, NotFound, Unavailable
from lxpy.storage import files
from lxpy.storage.trash import Trash
from lxpy.storage.volume import Pool, Volume, VolumeType, check_fingerprint

VOLUMES = ("containers", "custom")
SNAPSHOTS = ("containers-snapshots", "custom-snapshots")
AREAS = (*VOLUMES, *SNAPSHOTS, "images", "layers", ".trash")
#: files that an instance's directory may have beside its layers
METADATA = ("metadata.yaml", "templates")
NEW = ".new-"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def full_told(pool: Pool) -> Iterator[None]:
    """Say in a pool's words that it is full or read-only, or a guest's files do not fit on it."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise full(pool) from error
        if error.errno == errno.EROFS:
            raise read_only(pool) from error
        if error.errno == errno.ENAMETOOLONG:
            raise Failed(
                f'The files cannot be copied to storage pool "{pool.name}": there is a path of '
                "more than 4096 bytes: remove or shorten it"
            ) from error
        raise


@contextmanager
def told(pool: Pool) -> Iterator[None]:
    """Say in a pool's words that it is full or gone (looks at the disk: not for the loop)."""
    try:
        with full_told(pool):
            yield
    except FileNotFoundError as error:
        if not (pool.path / "containers").is_dir():
            raise missing(pool) from error
        raise


def full(pool: Pool) -> Failed:
    """Return the error of a pool without room."""
    return Failed(f'No space left in storage pool "{pool.name}": free some at {pool.path}')


def read_only(pool: Pool) -> Unavailable:
    """Return the error of a pool that cannot be written."""
    return Unavailable(
        f'Storage pool "{pool.name}" at {pool.path} is read-only: see dmesg for what is wrong with '
        "its disk, and mount it writable again"
    )


def missing(pool: Pool) -> Failed:
    """Return the error of a pool whose directory is not there."""
    return Failed(
        f'Storage pool "{pool.name}" is not usable: its source {pool.path} is missing: '
        "mount or restore it"
    )


def image_path(pool: Pool, fingerprint: str) -> Path:
    """Return where an image is, whether it exists or not."""
    return pool.path / "images" / check_fingerprint(fingerprint)


def volume_path(pool: Pool, volume: Volume) -> Path:
    """Return where a volume or snapshot is, whether it exists or not."""
    if volume.type is VolumeType.IMAGE:
        return image_path(pool, volume.name)
    area = "containers" if volume.type is VolumeType.CONTAINER else "custom"
    if not volume.snapshot:
        return pool.path / area / volume.directory_name
    return snapshots_path(pool, volume) / volume.snapshot_name


def snapshots_path(pool: Pool, volume: Volume) -> Path:
    """Return where the snapshots of a volume are, whether it has some or not."""
    area = "containers" if volume.type is VolumeType.CONTAINER else "custom"
    return pool.path / f"{area}-snapshots" / volume.directory_name


def is_hidden(snapshot: Volume) -> bool:
    """Tell whether a snapshot is for the length of an operation only."""
    return snapshot.snapshot.startswith(".")


def unfinished(place: Path) -> Path:
    """Return a name beside `place` for something that is being made."""
    return place.parent / f"{NEW}{secrets.token_hex(4)}-{place.name}"


def mkdir_private(path: Path) -> None:
    """Make a directory that only root may look into, unless it exists."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass


def begin(new: Path, pool: Pool) -> None:
    """Make the directory of something that is being made."""
    with told(pool):
        os.mkdir(new, 0o700)


def make_pool(pool: Pool, host: doctor.Host) -> None:
    """Make a pool's directories. Raises BadRequest when its source is not empty."""
    source = pool.path
    with told(pool):
        try:
            source.mkdir(mode=0o711, parents=True, exist_ok=True)
            for entry in source.iterdir():
                # Empty ones of ours are what an interrupted attempt has left.
                if entry.name not in AREAS or any(entry.iterdir()):
                    raise BadRequest(
                        f'Source path "{source}" isn\'t empty: give an empty directory'
                    )
        except (FileExistsError, NotADirectoryError) as error:
            raise BadRequest(f'Source path "{source}" is not a directory') from error
        check_filesystem(pool, host)
        for area in AREAS:
            mkdir_private(source / area)


def check_filesystem(pool: Pool, host: doctor.Host) -> None:
    """Raise Failed when the kernel cannot map the ids of instances on the pool's file system."""
    kind, target = doctor.filesystem_of(host, str(pool.path.resolve()))
    since = doctor.IDMAPPED.get(kind)
    if since is None or doctor.release(host) < since:
        raise Failed(
            f'Storage pool "{pool.name}" at {pool.path} lies on {kind or "an unknown file system"} '
            f"(mounted at {target or '?'}), which has no idmapped mounts on this kernel: use a "
            "source on ext4, xfs or btrfs"
        )


def sweep_pool(pool: Pool, trash: Trash, host: doctor.Host) -> None:
    """Check that a pool is there; move to the trash what a crash left half-made."""
    if not pool.path.is_dir():
        raise missing(pool)
    check_filesystem(pool, host)
    with told(pool):
        for area in AREAS:
            mkdir_private(pool.path / area)
        for area in AREAS:
            for entry in list((pool.path / area).glob(f"{NEW}*")):
                trash.discard(entry)
        for area in SNAPSHOTS:
            for entry in list((pool.path / area).glob("*/.*")):
                trash.discard(entry)
            for entry in list((pool.path / area).iterdir()):
                remove_if_empty(entry)


def remove_if_empty(directory: Path) -> None:
    """Remove a directory unless something is in it, or it is gone."""
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise


def clear_pool(pool: Pool, trash: Trash) -> None:
    """Move a pool's images to the trash. Raises BadRequest while it has other volumes."""
    for area in (*VOLUMES, *SNAPSHOTS):
        if (pool.path / area).is_dir() and any((pool.path / area).iterdir()):
            raise BadRequest(
                f'The storage pool is currently in use: "{pool.name}" has volumes in {area}'
            )
    images = pool.path / "images"
    for entry in list(images.iterdir()) if images.is_dir() else []:
        trash.discard(entry)


def remove_pool(pool: Pool) -> None:
    """Remove a pool's directories; a source that the user named stays."""
    try:
        for area in AREAS:
            if (pool.path / area).is_dir():
                (pool.path / area).rmdir()
        if not pool.config.get("volatile.initial_source") and pool.path.is_dir():
            pool.path.rmdir()
    except OSError as error:
        raise Failed(
            f'Storage pool "{pool.name}": {error.filename} could not be removed: {error.strerror}'
        ) from error


def publish_image(new: Path, image: Path, trash: Trash) -> None:
    """Write an unpacked image out to the disk and give it its name."""
    root = os.lstat(new / "rootfs")
    if not stat.S_ISDIR(root.st_mode):
        raise Failed("Invalid image: its rootfs is not a directory")
    # A power cut must not leave an image that is there but has empty files.
    files.syncfs(new)
    try:
        files.rename_new(new, image)
    except FileExistsError:
        trash.discard(new)  # another was quicker


def claim(new: Path, place: Path) -> None:
    """Give a finished tree its name. Raises Conflict if that is taken."""
    try:
        files.rename_new(new, place)
    except FileExistsError as error:
        raise taken(place) from error


def rename(old: Path, new: Path) -> None:
    """Give a volume another name. Raises NotFound or Conflict."""
    try:
        claim(old, new)
    except FileNotFoundError as error:
        raise NotFound(f'Storage pool volume not found: "{old.name}"') from error


def taken(place: Path) -> Conflict:
    """Return the error of a name that another volume has."""
    return Conflict(f'Volume by that name already exists: "{place.name}"')


def discard_new(new: Path) -> None:
    """Remove what was being made, at once: it is small, and holds nothing of a guest's."""
    shutil.rmtree(new, ignore_errors=True)
