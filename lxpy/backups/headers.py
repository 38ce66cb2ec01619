"""Headers of tar members: ustar, with pax records for what does not fit into it.

Source: pax(1p), "pax Header Block"; GNU tar manual, "Storing Sparse Files".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

BLOCK = 512
FILE, LINK, SYMLINK, DIRECTORY, FIFO = b"0", b"1", b"2", b"5", b"6"
END = b"\0" * (2 * BLOCK)
_PAX = b"x"
_OCTAL_7 = 0o7777777
_OCTAL_11 = 0o77777777777
_ACL_TAGS = {1: b"user", 2: b"user", 4: b"group", 8: b"group", 16: b"mask", 32: b"other"}
_ACL_NAMES = {
    "system.posix_acl_access": b"SCHILY.acl.access",
    "system.posix_acl_default": b"SCHILY.acl.default",
}


@dataclass(slots=True)
class Header:
    """What a member says of itself; `size` is that of its content in the archive, in bytes."""

    name: bytes
    kind: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    pax: dict[bytes, bytes] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the member's header blocks."""
        pax = dict(self.pax)
        seconds, fraction = divmod(self.mtime_ns, 10**9)
        if fraction or not 0 <= seconds <= _OCTAL_11:
            pax[b"mtime"] = _time(self.mtime_ns)
        for key, number, limit in (
            (b"uid", self.uid, _OCTAL_7),
            (b"gid", self.gid, _OCTAL_7),
            (b"size", self.size, _OCTAL_11),
        ):
            if number > limit:
                pax[key] = b"%d" % number
        if len(self.name) > 100:
            pax[b"path"] = self.name
        if len(self.link) > 100:
            pax[b"linkpath"] = self.link
        for name, value in self.xattrs.items():
            pax.update([_attribute(name, value)])
        mtime = min(max(seconds, 0), _OCTAL_11)
        block = _block(self, mtime)
        if not pax:
            return block
        records = b"".join(_record(key, value) for key, value in pax.items())
        outer = Header(b"PaxHeaders/" + self.name[-80:], _PAX, size=len(records))
        return b"".join((_block(outer, mtime), records, padding(len(records)), block))


def padding(size: int) -> bytes:
    """Return what fills content of that size up to a whole block."""
    return b"\0" * (-size % BLOCK)


def _block(header: Header, mtime: int) -> bytes:
    """Return a ustar block; numbers too large for it are in pax records."""
    block = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%bustar\x0000%b0000000\x000000000\0%b" % (
        header.name[:100].ljust(100, b"\0"),
        header.mode & 0o7777,
        min(header.uid, _OCTAL_7),
        min(header.gid, _OCTAL_7),
        min(header.size, _OCTAL_11),
        mtime,
        header.kind,
        header.link[:100].ljust(100, b"\0"),
        b"\0" * 64,
        b"\0" * 167,
    )
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])


def _record(key: bytes, value: bytes) -> bytes:
    """Return "LENGTH KEY=VALUE\\n", whose length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if rest + len(str(length)) != length:
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _time(mtime_ns: int) -> bytes:
    sign = "-" if mtime_ns < 0 else ""
    seconds, fraction = divmod(abs(mtime_ns), 10**9)
    return f"{sign}{seconds}.{fraction:09}".rstrip("0").rstrip(".").encode()


def _attribute(name: str, value: bytes) -> tuple[bytes, bytes]:
    if name in _ACL_NAMES:
        text = acl_text(value)
        if text is not None:
            return _ACL_NAMES[name], text
    return b"SCHILY.xattr." + name.encode("utf-8", "surrogateescape"), value


def acl_text(value: bytes) -> bytes | None:
    """Return an access list as star writes it, None for one that is malformed.

    Source: acl(5), linux/posix_acl_xattr.h.
    """
    if len(value) < 4 or (len(value) - 4) % 8 or value[:4] != b"\2\0\0\0":
        return None
    entries = []
    for tag, bits, number in struct.iter_unpack("<HHI", value[4:]):
        if tag not in _ACL_TAGS:
            return None
        who = b"%d" % number if tag in (2, 8) else b""
        letters = b"".join(
            letter if bits & bit else b"-" for letter, bit in ((b"r", 4), (b"w", 2), (b"x", 1))
        )
        entries.append(b"%b:%b:%b" % (_ACL_TAGS[tag], who, letters))
    return b",".join(entries)
