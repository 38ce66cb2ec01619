"""What a file is, by its first bytes, and which program turns it into a tar stream."""

from __future__ import annotations

from dataclasses import dataclass

_TAR_MAGIC_AT = 257


@dataclass(frozen=True, slots=True)
class Compression:
    """A way to compress: LXD's name for it, the file suffix, and the programs' arguments.

    `library` names the module of Python that can replace a missing program.
    """

    name: str
    suffix: str
    magic: bytes
    decompress: tuple[str, ...]
    compress: tuple[str, ...]
    library: str = ""
    package: str = ""


GZIP = Compression("gzip", ".gz", b"\x1f\x8b", ("gzip", "-dc"), ("gzip", "-6n"), "gzip", "gzip")
BZIP2 = Compression("bzip2", ".bz2", b"BZh", ("bzip2", "-dc"), ("bzip2",), "bz2", "bzip2")
# xz may ask for gigabytes of memory to decompress; no image needs that.
XZ = Compression(
    "xz",
    ".xz",
    b"\xfd7zXZ\x00",
    ("xz", "-dc", "-T0", "--memlimit-decompress=512MiB"),
    ("xz", "-T0", "-2"),
    "lzma",
    "xz-utils",
)
LZMA = Compression(
    "lzma",
    ".lzma",
    b"\x5d\x00\x00",
    ("xz", "--format=lzma", "-dc", "--memlimit-decompress=512MiB"),
    ("xz", "--format=lzma", "-2"),
    "lzma",
    "xz-utils",
)
ZSTD = Compression(
    "zstd", ".zst", b"\x28\xb5\x2f\xfd", ("zstd", "-dcq"), ("zstd", "-cq", "-T0", "-3"), "", "zstd"
)
NONE = Compression("none", "", b"", (), ())
SQUASHFS = Compression("squashfs", ".squashfs", b"hsqs", (), (), "", "squashfs-tools")

BY_NAME = {each.name: each for each in (GZIP, BZIP2, XZ, LZMA, ZSTD, NONE, SQUASHFS)}


def detect(head: bytes) -> Compression | None:
    """Tell what a file is from its first 512 bytes; None if it can be no image."""
    for each in (GZIP, BZIP2, XZ, ZSTD, SQUASHFS, LZMA):
        if head.startswith(each.magic):
            return each
    return NONE if _is_tar(head) else None


def _is_tar(head: bytes) -> bool:
    if len(head) < 512:
        return False
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        return True
    # The oldest format has no magic, but its checksum: the sum of all bytes, itself as spaces.
    try:
        said = int(head[148:156].strip(b"\x00 "), 8)
    except ValueError:
        return False
    return said == sum(head[:148]) + 8 * 0x20 + sum(head[156:512])
