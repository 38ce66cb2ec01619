"""Packing a directory into a unified image file: metadata.yaml, templates/, rootfs/."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from pathlib import Path

from lxpy.errors import BadRequest, Failed, MissingTool
from lxpy.images.compression import BY_NAME, GZIP, NONE, SQUASHFS, ZSTD, Compression
from lxpy.images.progress import Progress, silent
from lxpy.threads import in_thread

# A guest's /dev, /proc and /sys are made at its start: nodes in there would only be refused.
_LEFT_OUT = ("./dev/*", "./proc/*", "./sys/*")
_TAR = (
    "tar", "--create", "--format=posix", "--numeric-owner", "--sparse", "--sort=name", "--acls",
    "--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability",
    "--warning=no-file-ignored", "--warning=no-file-changed",
)  # fmt: skip
#: a level and what else is harmless: no option that names a file
OPTION = r"(?:-[0-9]{1,2}|-n|-T[0-9]{1,2}|--fast|--best|--rsyncable)"
_ALGORITHM = re.compile(rf"([a-z0-9]+)((?: +{OPTION})*)")
_REPORT_S = 0.5


@dataclass(frozen=True, slots=True)
class Packer:
    """A compression, and the command that does it: reads and writes the standard streams."""

    compression: Compression
    command: tuple[str, ...]

    @property
    def suffix(self) -> str:
        """What the file's name ends in."""
        return f".tar{self.compression.suffix}"


def default_packer() -> Packer:
    """Return the fastest way to pack that this host has (it looks: blocking)."""
    best = ZSTD if shutil.which(ZSTD.compress[0]) else GZIP
    return Packer(best, best.compress)


def packer(algorithm: str) -> Packer:
    """Return the packer that LXD's setting `compression_algorithm` names.

    "zstd", "gzip -9 --rsyncable": a program, and options that name no file.
    An empty setting is the default. Raises BadRequest for a name that is not known.
    """
    if not algorithm:
        return default_packer()
    match = _ALGORITHM.fullmatch(algorithm.strip())
    found = BY_NAME.get({"pigz": "gzip"}.get(match[1], match[1])) if match else None
    if match is None or found is None or found is SQUASHFS:
        known = ", ".join(name for name in BY_NAME if name != SQUASHFS.name)
        raise BadRequest(f'Invalid compression algorithm "{algorithm}": use one of {known}')
    options = match[2].split()
    if found is NONE:
        return Packer(found, found.compress)
    kept = found.compress
    if any(re.fullmatch(r"-\d+|--fast|--best", each) for each in options):
        kept = tuple(each for each in kept if not re.fullmatch(r"-\d+n?", each))
    return Packer(found, (*kept, *options))


async def pack(
    directory: Path, rootfs: Path, target: Path, how: Packer, progress: Progress = silent
) -> None:
    """Write the image file `target` from `directory`/metadata.yaml, its templates/, and a rootfs.

    `rootfs` may lie anywhere. Owners are kept as numbers, with capabilities, access lists, user
    attributes and holes. Raises Failed or MissingTool; then no file is left.
    """
    parts = ["metadata.yaml"]
    if await in_thread((directory / "templates").is_dir):
        parts.append("templates")
    command = (
        *_TAR,
        f"--directory={directory}",
        *parts,
        # hard links' targets are renamed with the members, what symbolic links say is not
        r"--transform=flags=rhS;s,^\.,rootfs,",
        "--anchored",
        *(f"--exclude={each}" for each in _LEFT_OUT),
        f"--directory={rootfs}",
        ".",
    )
    descriptor = await in_thread(os.open, target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        watcher = asyncio.create_task(_watch(descriptor, progress))
        try:
            await _run(command, how, descriptor)
        finally:
            watcher.cancel()
            await asyncio.wait([watcher])
    except BaseException:
        await in_thread(target.unlink, True)
        raise
    finally:
        os.close(descriptor)


async def _run(command: tuple[str, ...], how: Packer, output: int) -> None:
    """Run tar, and the compressor behind it, until both have ended."""
    environment = {**os.environ, "LC_ALL": "C", "TAR_OPTIONS": ""}
    started: list[Process] = []
    try:
        if not how.command:
            started.append(await _start(command, DEVNULL, output, environment))
        else:
            reading, writing = os.pipe()
            try:
                started.append(await _start(command, DEVNULL, writing, environment))
                started.append(await _start(how.command, reading, output, environment))
            finally:
                os.close(reading)
                os.close(writing)
        complaints = [await process.communicate() for process in started]
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
                await process.wait()
    # A full disk ends the compressor first, then tar by a broken pipe: ask the last one first.
    for process, (_, text) in reversed(list(zip(started, complaints, strict=True))):
        is_tar = process is started[0]
        if process.returncode == 0 or (is_tar and process.returncode == 1):
            continue  # tar's 1: a file changed while it was read
        lines = text.decode("utf-8", "replace").strip().splitlines()
        reason = lines[0] if lines else f"status {process.returncode}"
        if os.strerror(errno.ENOSPC) in reason:
            raise Failed("Failed to pack the image: no space left on the device")
        raise Failed(f"Failed to pack the image: {reason}")


async def _start(
    command: tuple[str, ...], source: int, output: int, environment: dict[str, str]
) -> Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command, stdin=source, stdout=output, stderr=PIPE, env=environment
        )
    except FileNotFoundError as error:
        package = next((c.package for c in BY_NAME.values() if c.compress[:1] == command[:1]), "")
        raise MissingTool(command[0], package or command[0], "packing this image") from error


async def _watch(descriptor: int, progress: Progress) -> None:
    while True:
        await asyncio.sleep(_REPORT_S)
        size = await in_thread(os.fstat, descriptor)
        progress("pack", f"Packing image: {size.st_size / 1e6:.2f}MB")
