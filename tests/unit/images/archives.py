"""Builds image archives, honest and hostile, in memory."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator

METADATA = """\
architecture: x86_64
creation_date: 1700000000
properties: {os: tiny, release: 1, description: Tiny image}
templates:
  /etc/hostname: {when: [create, copy], template: hostname.tpl}
"""


class Archive:
    """A tar archive that is added to, member by member."""

    def __init__(self, format: int = tarfile.PAX_FORMAT) -> None:
        self.buffer = io.BytesIO()
        self.tar = tarfile.TarFile(fileobj=self.buffer, mode="w", format=format)

    def file(self, name: str, content: bytes = b"", **fields: object) -> Archive:
        return self.member(name, tarfile.REGTYPE, content=content, **fields)

    def directory(self, name: str, **fields: object) -> Archive:
        return self.member(name, tarfile.DIRTYPE, mode=fields.pop("mode", 0o755), **fields)

    def symlink(self, name: str, target: str) -> Archive:
        return self.member(name, tarfile.SYMTYPE, linkname=target)

    def link(self, name: str, target: str) -> Archive:
        return self.member(name, tarfile.LNKTYPE, linkname=target)

    def node(self, name: str, type: bytes = tarfile.CHRTYPE) -> Archive:
        return self.member(name, type, devmajor=1, devminor=3)

    def member(self, name: str, type: bytes, *, content: bytes = b"", **fields: object) -> Archive:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.mtime = type, len(content), 1_600_000_000
        for field, value in fields.items():
            setattr(info, field, value)
        self.tar.addfile(info, io.BytesIO(content))
        return self

    def bytes(self) -> bytes:
        self.tar.close()
        return self.buffer.getvalue()


def image(format: int = tarfile.PAX_FORMAT) -> Archive:
    """Begin a unified image that is fine so far."""
    archive = Archive(format)
    archive.file("metadata.yaml", METADATA.encode())
    archive.directory("templates").file("templates/hostname.tpl", b"{{ container.name }}\n")
    return archive.directory("rootfs").directory("rootfs/etc")


async def chunks(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
