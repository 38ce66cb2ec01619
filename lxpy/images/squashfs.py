"""Images that are squashfs files: unpacked by unsquashfs, judged before and after."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path

from lxpy.errors import Failed, MissingTool
from lxpy.images.attributes import wanted
from lxpy.images.extract import NODES_DROPPED, Found, Job
from lxpy.images.tarstream import printable
from lxpy.programs import run
from lxpy.threads import in_thread

# -lln: "-rw-r--r-- 0/0      2 2026-11-24 09:10 squashfs-root/etc/hostname"
_LINE = re.compile(
    rb"([-dlbcps])\S{9} (?:\d+/\d+) +(\d+|\d+, *\d+) \d{4}-\d\d-\d\d \d\d:\d\d squashfs-root(.*)"
)
_METADATA_BYTES = 1 << 20
_CHECK_TIMEOUT_S = 60
_TIMEOUT_S = 3600


async def extract(job: Job) -> Found:
    """Carry out a job on a squashfs file. Raises Failed or MissingTool."""
    found = await _survey(job)
    if job.layout != "rootfs" and found.metadata is not None:
        found.metadata = await _metadata(job.source)
    if job.target is not None:
        if found.disk_image:
            raise Failed("Invalid image: it is the disk image of a virtual machine")
        await _unpack(job, job.target)
        await in_thread(_judge, Path(job.target))
    return found


async def _survey(job: Job) -> Found:
    """Count what is in there before anything is written."""
    found = Found()
    async for kind, size, path in _members(job.source):
        found.files += 1
        if kind == b"-":
            found.bytes += size
        if found.files > job.max_files:
            raise Failed(f"Refused to unpack the image: it holds more than {job.max_files} files")
        if found.bytes > job.max_bytes:
            raise Failed(f"Refused to unpack the image: it holds more than {job.max_bytes} bytes")
        name = os.fsdecode(path.lstrip(b"/"))
        if job.layout == "rootfs":
            found.rootfs = True
        elif name == "metadata.yaml" and kind == b"-":
            if size > _METADATA_BYTES:
                raise Failed("Refused to unpack the image: metadata.yaml is larger than 1 MiB")
            found.metadata = ""
        elif name.startswith("templates/"):
            found.templates += 1
        elif name == "rootfs" and kind == b"d":
            found.rootfs = True
        elif name == "rootfs.img":
            found.disk_image = True
        inside = name if job.layout == "rootfs" else name.removeprefix("rootfs/")
        if kind in (b"b", b"c") and not inside.startswith(NODES_DROPPED):
            raise Failed(f'Invalid image: member "{printable(name)}" is a device node')
    return found


async def _members(source: str) -> AsyncIterator[tuple[bytes, int, bytes]]:
    try:
        process = await asyncio.create_subprocess_exec(
            "unsquashfs",
            "-lln",
            source,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise MissingTool("unsquashfs", "squashfs-tools", "unpacking this image") from error
    assert process.stdout is not None
    last = b""
    try:
        async for line in process.stdout:
            last = line
            match = _LINE.match(line.rstrip(b"\n"))
            if match:
                size = match[2]
                yield match[1], 0 if b"," in size else int(size), match[3]
        if await process.wait() != 0:
            reason = last.decode("utf-8", "replace").strip()
            raise Failed(f"Invalid image: the squashfs is damaged: {reason}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _metadata(source: str) -> str:
    output = await _unsquashfs("-cat", source, "metadata.yaml", timeout_s=_CHECK_TIMEOUT_S)
    return output[:_METADATA_BYTES].decode("utf-8", "replace")


async def _unpack(job: Job, target: str) -> None:
    if job.layout == "rootfs":
        await _unsquashfs("-n", "-d", f"{target}/rootfs", job.source, timeout_s=_TIMEOUT_S)
        return
    parts = ["metadata.yaml", "templates"] + (["rootfs"] if job.layout == "unified" else [])
    await _unsquashfs("-n", "-f", "-d", target, job.source, *parts, timeout_s=_TIMEOUT_S)


async def _unsquashfs(*arguments: str, timeout_s: float) -> bytes:
    completed = await run("unsquashfs", *arguments, timeout_s=timeout_s, check=False)
    if completed.returncode != 0:
        lines = completed.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = lines[0] if lines else f"status {completed.returncode}"
        if "No space left" in reason or "disk full" in reason:
            raise Failed("Failed to unpack the image: no space left on the device")
        raise Failed(f"Invalid image: the squashfs is damaged: {reason}")
    return completed.stdout


def _judge(target: Path) -> None:
    """Remove what must not come from an image; templates must be plain files (blocking)."""
    for name in ("metadata.yaml", "templates"):
        if (target / name).is_symlink():
            raise Failed(f"Invalid image: {name} is a link")
    templates = target / "templates"
    if templates.is_dir():
        for entry in os.scandir(templates):
            if not entry.is_file(follow_symlinks=False):
                name = printable(entry.name)
                raise Failed(f'Invalid image: member "templates/{name}" is not a regular file')
    rootfs = target / "rootfs"
    if not os.path.lexists(rootfs):
        return
    if not stat.S_ISDIR(os.lstat(rootfs).st_mode):
        raise Failed("Invalid image: the rootfs is not a directory")
    for top, directories, others in os.walk(rootfs, followlinks=False):
        for name in (*directories, *others):
            _judge_one(os.path.join(top, name))


def _judge_one(path: str) -> None:
    mode = os.lstat(path).st_mode
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode):
        os.unlink(path)
        return
    for attribute in os.listxattr(path, follow_symlinks=False):
        if not wanted(attribute):
            os.removexattr(path, attribute, follow_symlinks=False)
