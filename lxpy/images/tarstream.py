"""Reads a tar archive from a pipe, once, front to back, and believes nothing it says.

Python's tarfile decodes the headers; what it forgives is an error here (an archive that ends
early, a damaged header), and what it would read without bound has a bound (headers).
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from typing import NoReturn

_CHUNK = 1 << 20


class BadArchive(Exception):
    """The archive is damaged, ends early, or asks for something that an image must not."""


class Stream:
    """Forward-only file over a descriptor: what tarfile reads counts as header and is bounded."""

    name = ""
    mode = "rb"
    header_bytes = 1 << 20  # of one member: names, extended attributes, the map of a sparse file

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer = memoryview(b"")
        self._position = 0
        self._budget = self.header_bytes

    def tell(self) -> int:
        """Return how many bytes of the archive have been consumed."""
        return self._position

    def begin_member(self) -> None:
        """Grant the next member its header bytes."""
        self._budget = self.header_bytes

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes, or none at the end. Raises BadArchive."""
        if size < 0 or size > self._budget:
            raise BadArchive("a header is larger than an image may have")
        self._budget -= size
        parts = []
        wanted = size
        while wanted:
            part = self._next(wanted)
            if not part:
                break
            parts.append(part)
            wanted -= len(part)
        if wanted and parts:
            raise BadArchive("the archive ends in the middle of a header")
        return b"".join(parts)

    def seek(self, position: int) -> NoReturn:
        """Refuse: nothing here may jump."""
        raise BadArchive(f"the archive jumps to {position}")

    def skip_to(self, position: int) -> None:
        """Read on to `position`. Raises BadArchive for one that lies behind, or past the end."""
        if position < self._position:
            raise BadArchive("a member has a negative size")
        self.copy(position - self._position, lambda _: None)

    def copy(self, size: int, write: Callable[[memoryview], object]) -> None:
        """Hand the next `size` bytes on, piece by piece. Raises BadArchive if they end early."""
        while size > 0:
            part = self._next(size)
            if not part:
                raise BadArchive("the archive ends in the middle of a file: it is truncated")
            write(part)
            size -= len(part)

    def drain(self, limit: int) -> None:
        """Read what follows the end mark, so that the decompressor checks its sums."""
        while limit > 0 and (part := self._next(_CHUNK)):
            limit -= len(part)

    def _next(self, size: int) -> memoryview:
        if not self._buffer:
            self._buffer = memoryview(self._read(_CHUNK))
        part, self._buffer = self._buffer[:size], self._buffer[size:]
        self._position += len(part)
        return part


class Reader(tarfile.TarFile):
    """A TarFile that yields each member once and keeps none of them."""

    def __init__(self, stream: Stream) -> None:
        # Not "stream": TarFile has an attribute of that name since Python 3.13.
        self._source = stream
        super().__init__(fileobj=stream, mode="r", encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]

    def next(self) -> tarfile.TarInfo | None:
        """Return the next member, None at the end mark. Raises BadArchive."""
        first = getattr(self, "firstmember", None)
        if first is not None:
            self.firstmember = None
            return first  # type: ignore[no-any-return]
        self._source.skip_to(self.offset)
        self._source.begin_member()
        try:
            info = self.tarinfo.fromtarfile(self)
        except tarfile.HeaderError as error:
            _check_end(error)
            return None
        except RecursionError:
            raise BadArchive("a member has too many headers") from None
        except (ValueError, OverflowError, UnicodeError) as error:
            raise BadArchive(f"a header is damaged: {error}") from error
        if info.size < 0:
            raise BadArchive(f'member "{printable(info.name)}" has a negative size')
        return info

    def stored(self, info: tarfile.TarInfo) -> int:
        """Return how many bytes of the archive the member's content takes, padding included."""
        return self.offset - info.offset_data


def _check_end(error: tarfile.HeaderError) -> None:
    """Return for the end mark, the only good reason for an archive to have no further member."""
    kind = type(error).__name__
    if kind == "EOFHeaderError":
        return
    if kind in ("EmptyHeaderError", "TruncatedHeaderError"):
        raise BadArchive("the archive has no end mark: it is truncated") from error
    raise BadArchive(f"a header is damaged: {error}") from error


def printable(name: str) -> str:
    """Return a name from an archive as it may be shown to a human and sent as JSON."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    text = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    return text if len(text) <= 200 else text[:200] + "..."
