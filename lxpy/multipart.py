"""Files as bodies of HTTP messages, single or as parts of a form, not held in memory."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from types import TracebackType

from lxpy.threads import in_thread

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """One file: the form's field, the name it is given, and where it is."""

    field: str
    filename: str
    path: Path


class Form:
    """Files as a form, open within its block: what is deleted meanwhile is sent, too.

    A `bare` one is the content of the files and nothing else. Raises OSError when one cannot be
    opened.
    """

    def __init__(self, parts: list[Part], *, bare: bool = False) -> None:
        self._parts = parts
        self._boundary = token_hex(30)
        self._files: list[int] = []
        self._heads = [self._head(part, first=not number) for number, part in enumerate(parts)]
        self._tail = f"\r\n--{self._boundary}--\r\n".encode()
        self.content_type = f"multipart/form-data; boundary={self._boundary}"
        if bare:
            self._heads, self._tail = [b""] * len(parts), b""
            self.content_type = "application/octet-stream"

    async def __aenter__(self) -> Form:
        try:
            for part in self._parts:
                flags = os.O_RDONLY | os.O_CLOEXEC
                self._files.append(await in_thread(os.open, part.path, flags))
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    @property
    def length(self) -> int:
        """Bytes of the whole."""
        sizes = sum(os.fstat(file).st_size for file in self._files)
        return sum(map(len, self._heads)) + sizes + len(self._tail)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the form."""
        for head, file in zip(self._heads, self._files, strict=True):
            yield head
            while data := await in_thread(os.read, file, _CHUNK):
                yield data
        yield self._tail

    def _close(self) -> None:
        while self._files:
            os.close(self._files.pop())

    def _head(self, part: Part, *, first: bool) -> bytes:
        lead = "" if first else "\r\n"
        return (
            f"{lead}--{self._boundary}\r\n"
            f'Content-Disposition: form-data; name="{part.field}"; filename="{part.filename}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
