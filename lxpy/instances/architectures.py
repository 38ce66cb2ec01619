"""Architectures: LXD's names (the kernel's), its numbers, and what distributions call them."""

from __future__ import annotations

from lxpy.errors import InvalidConfig

#: LXD's name -> its number in databases and on the wire
IDS = {
    "i686": 1, "x86_64": 2, "armv7l": 3, "aarch64": 4, "ppc": 5, "ppc64": 6, "ppc64le": 7,
    "s390x": 8, "mips": 9, "mips64": 10, "riscv32": 11, "riscv64": 12, "armv6l": 13, "armv8l": 14,
    "loongarch64": 15,
}  # fmt: skip
#: LXD's name -> Debian's
DEBIAN = {
    "i686": "i386", "x86_64": "amd64", "armv7l": "armhf", "aarch64": "arm64", "ppc": "powerpc",
    "ppc64": "ppc64", "ppc64le": "ppc64el", "s390x": "s390x", "mips": "mips",
    "mips64": "mips64el", "riscv32": "riscv32", "riscv64": "riscv64", "armv6l": "armel",
    "armv8l": "armhf", "loongarch64": "loong64",
}  # fmt: skip
_ALIASES = {
    "i386": "i686", "i486": "i686", "i586": "i686", "386": "i686", "x86": "i686",
    "amd64": "x86_64", "generic_64": "x86_64", "x86-64": "x86_64",
    "armhf": "armv7l", "armhfp": "armv7l", "armv7": "armv7l", "arm": "armv7l", "armv7a": "armv7l",
    "armel": "armv6l", "arm64": "aarch64", "arm64_generic": "aarch64", "powerpc": "ppc",
    "powerpc64": "ppc64", "ppc64el": "ppc64le", "mipsel": "mips", "mips64el": "mips64",
    "riscv": "riscv64", "loong64": "loongarch64",
}  # fmt: skip
#: what else runs on a processor of that name
_PERSONALITIES = {
    "x86_64": ("i686",), "aarch64": ("armv8l", "armv7l", "armv6l"), "armv8l": ("armv7l", "armv6l"),
    "armv7l": ("armv6l",), "ppc64": ("ppc",), "riscv64": ("riscv32",), "mips64": ("mips",),
}  # fmt: skip


def lxd_name(name: str) -> str:
    """Return LXD's name for a name or number of an architecture. Raises InvalidConfig."""
    lowered = name.lower()
    if lowered in IDS:
        return lowered
    if lowered in _ALIASES:
        return _ALIASES[lowered]
    for known, number in IDS.items():
        if name == str(number):
            return known
    raise InvalidConfig(
        f'Architecture isn\'t supported: "{name}": use one of {", ".join(sorted(IDS))}'
    )


def debian_name(name: str) -> str:
    """Return Debian's name for any name of an architecture. Raises InvalidConfig."""
    return DEBIAN[lxd_name(name)]


def runnable(host: str) -> tuple[str, ...]:
    """Return the architectures that run on a host, its own first. Raises InvalidConfig."""
    own = lxd_name(host)
    return (own, *_PERSONALITIES.get(own, ()))
