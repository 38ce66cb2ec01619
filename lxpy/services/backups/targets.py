"""Backups that are sent to a bucket while they are made."""

from __future__ import annotations

import asyncio

import structlog

from lxpy.api.backups import BackupTarget
from lxpy.backups.writer import Chunks
from lxpy.bucket import MultipartUpload, Place
from lxpy.errors import BadRequest, LxpyError
from lxpy.images.progress import Meter
from lxpy.threads import in_thread, in_thread_or_undo

_log = structlog.get_logger()


def place_of(target: BackupTarget) -> Place:
    """Return where a backup is to be sent to. Raises BadRequest."""
    if target.protocol != "s3":
        raise BadRequest(f'Invalid target protocol "{target.protocol}": use s3')
    missing = [
        name
        for name in ("bucket_name", "path", "access_key", "secret_key")
        if not getattr(target, name)
    ]
    if missing:
        raise BadRequest(f"The target of the backup lacks {', '.join(missing)}")
    if target.url and not target.url.startswith(("http://", "https://")):
        raise BadRequest(f'Invalid target url "{target.url}": write http:// or https://')
    return Place(target.bucket_name, target.path, target.url, target.access_key, target.secret_key)


async def send(chunks: Chunks, place: Place, meter: Meter) -> None:
    """Send an archive as it comes; the object is there when all of it has.

    Raises Failed; then the server has forgotten what it had.
    """
    upload = await in_thread_or_undo(lambda: MultipartUpload(place), MultipartUpload.abort)
    try:
        waiting = bytearray()
        async for chunk in chunks:
            waiting += chunk
            meter.add(len(chunk))
            if len(waiting) >= upload.part_bytes:
                await in_thread(upload.put, bytes(waiting))
                waiting.clear()
        if waiting:
            await in_thread(upload.put, bytes(waiting))
        await in_thread(upload.finish)
    except BaseException:
        await asyncio.shield(asyncio.ensure_future(_abort(upload, place)))
        raise


async def _abort(upload: MultipartUpload, place: Place) -> None:
    try:
        await in_thread(upload.abort)
    except LxpyError as error:
        _log.warning("parts of an upload stay", target=str(place), error=str(error))
