"""Sending files as the parts of a form, without holding them in memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from aiohttp import web

from lxpy.threads import in_thread

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """One file: the form's field, the name it is given, and where it is."""

    field: str
    filename: str
    path: Path


async def send(request: web.Request, parts: list[Part]) -> web.StreamResponse:
    """Reply with a form whose fields are files. Raises OSError when one cannot be opened."""
    boundary = token_hex(30)
    heads = [_head(boundary, part, first=number == 0) for number, part in enumerate(parts)]
    tail = f"\r\n--{boundary}--\r\n".encode()
    files = [await in_thread(os.open, part.path, os.O_RDONLY | os.O_CLOEXEC) for part in parts]
    try:
        sizes = [os.fstat(file).st_size for file in files]
        response = web.StreamResponse(
            headers={"Content-Type": f"multipart/form-data; boundary={boundary}"}
        )
        response.content_length = sum(map(len, heads)) + sum(sizes) + len(tail)
        await response.prepare(request)
        for head, file in zip(heads, files, strict=True):
            await response.write(head)
            while data := await in_thread(os.read, file, _CHUNK):
                await response.write(data)
        await response.write(tail)
        await response.write_eof()
        return response
    finally:
        for file in files:
            os.close(file)


def _head(boundary: str, part: Part, *, first: bool) -> bytes:
    lead = "" if first else "\r\n"
    return (
        f"{lead}--{boundary}\r\n"
        f'Content-Disposition: form-data; name="{part.field}"; filename="{part.filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
