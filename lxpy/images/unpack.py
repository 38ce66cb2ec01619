"""Unpacking and checking image files, each in a short process of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any  # a message of the program: checked by its keys

from lxpy.errors import Failed, MissingTool
from lxpy.images import squashfs
from lxpy.images.compression import SQUASHFS, Compression, detect
from lxpy.images.extract import Found, Job
from lxpy.threads import in_thread

# -I -S: no site-packages, no user settings; the program needs this package's directory alone.
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from lxpy.images.extract import main; main()"
)
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
_LINE_BYTES = 8 << 20  # the outcome carries metadata.yaml


async def detect_file(path: Path) -> Compression:
    """Tell what an image file is. Raises Failed if it can be no image."""

    def head() -> bytes:
        with path.open("rb") as file:
            return file.read(512)

    compression = detect(await in_thread(head))
    if compression is None:
        raise Failed(
            "Invalid image: it is neither a tar archive (plain, gzip, bzip2, xz, lzma, zstd) "
            "nor a squashfs"
        )
    return compression


async def extract(job: Job, report: Callable[[int], None] | None = None) -> Found:
    """Carry out a job on an image file of any kind; `report` hears percents.

    Raises Failed, which names the member at fault, and MissingTool. What was written until then
    stays: the caller gave the directory, and removes it.
    """
    if await detect_file(Path(job.source)) is SQUASHFS:
        return await squashfs.extract(job)
    outcome = await _run_program(job, report)
    if "done" in outcome:
        return Found(**outcome["done"])
    raise _failure(outcome)


async def _run_program(job: Job, report: Callable[[int], None] | None) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        "-c",
        _PROGRAM,
        _PACKAGE_ROOT,
        json.dumps(dataclasses.asdict(job)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
    )
    assert process.stdout is not None and process.stderr is not None
    outcome: dict[str, Any] = {}
    try:
        complaint = asyncio.create_task(process.stderr.read())
        async for line in process.stdout:
            message = json.loads(line)
            if "percent" not in message:
                outcome = message
            elif report is not None:
                report(message["percent"])
        text = (await complaint).decode("utf-8", "replace").strip()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if not outcome:
        reason = text.splitlines()[-1] if text else f"status {process.returncode}"
        raise Failed(f"The program that unpacks images ended early: {reason}")
    return outcome


def _failure(outcome: dict[str, Any]) -> Failed:
    text = str(outcome["error"])
    if outcome["kind"] == "host":
        if outcome.get("errno") == errno.ENOSPC:
            return Failed("Failed to unpack the image: no space left on the device")
        if "is not installed" in text and '"zstd"' in text:
            return MissingTool("zstd", "zstd", "unpacking this image")
        return Failed(f"Failed to unpack the image: {text}")
    if outcome["kind"] == "limit":
        return Failed(f"Refused to unpack the image: {text}")
    return Failed(f"Invalid image: {text}")
