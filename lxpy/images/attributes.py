"""Extended attributes and access lists of archive members, as the file system takes them."""

from __future__ import annotations

import base64
import binascii
import struct
import urllib.parse
from collections.abc import Mapping

_XATTR = "SCHILY.xattr."  # GNU tar, star
_LIBARCHIVE_XATTR = "LIBARCHIVE.xattr."
_ACLS = {
    "SCHILY.acl.access": "system.posix_acl_access",
    "SCHILY.acl.default": "system.posix_acl_default",
}
_TAGS = {"user": 0x02, "group": 0x08, "mask": 0x10, "other": 0x20}
_OWNER_TAGS = {"user": 0x01, "group": 0x04}
_ANY = 0xFFFFFFFF


def wanted(name: str) -> bool:
    """Tell whether an attribute belongs to a guest's files.

    Not trusted.*: overlayfs would obey it. Not security.* but capabilities: it is the host's.
    """
    return name.startswith("user.") or name in (
        "security.capability",
        "system.posix_acl_access",
        "system.posix_acl_default",
    )


def from_pax(headers: Mapping[str, str]) -> dict[str, bytes]:
    """Return the attributes a member's pax headers give, access lists as binary attributes."""
    found: dict[str, bytes] = {}
    for key, value in headers.items():
        if key.startswith(_XATTR):
            found[key[len(_XATTR) :]] = value.encode("utf-8", "surrogateescape")
        elif key.startswith(_LIBARCHIVE_XATTR):
            name = urllib.parse.unquote(key[len(_LIBARCHIVE_XATTR) :])
            try:
                found[name] = base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
            except (binascii.Error, ValueError):
                continue
        elif key in _ACLS:
            binary = acl(value)
            if binary is not None:
                found[_ACLS[key]] = binary
    return {name: value for name, value in found.items() if wanted(name)}


def acl(text: str) -> bytes | None:
    """Return an access list in the kernel's form; None if it is empty or names no numbers.

    Source: acl(5), linux/posix_acl_xattr.h.
    """
    entries = []
    for line in text.replace(",", "\n").splitlines():
        parts = line.split("#")[0].strip().split(":")
        if len(parts) < 3:
            continue
        kind, who, permissions = parts[0], parts[1], parts[2]
        if kind not in _TAGS:
            return None
        if who and not who.isdigit():
            # star adds the number as a fourth field; a bare name means nothing on this host
            if len(parts) < 4 or not parts[3].isdigit():
                return None
            who = parts[3]
        tag = _TAGS[kind] if who else _OWNER_TAGS.get(kind, _TAGS[kind])
        bits = sum(bit for letter, bit in (("r", 4), ("w", 2), ("x", 1)) if letter in permissions)
        number = int(who) if who else _ANY
        if number > _ANY:
            return None
        entries.append((tag, bits, number))
    if not entries:
        return None
    entries.sort(key=lambda each: (each[0], each[2]))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)
