"""unix-char and unix-block: a device node of the host, shown in the instance."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Literal

from lxpy.errors import Failed, InvalidConfig
from lxpy.instances.devices.base import Kind, Options, options
from lxpy.keys import BOOL, MODE, UINT32, UNIX_ID, Type
from lxpy.runtime.spec import Node
from lxpy.units import is_false

_KINDS: dict[str, Literal["c", "b"]] = {"unix-char": "c", "unix-block": "b"}


@dataclass(frozen=True, slots=True)
class HostNode:
    """What a path of the host is, by stat(2)."""

    kind: Literal["c", "b"]
    major: int
    minor: int


def _path(value: str) -> None:
    parts = value.split("/")
    if not value.startswith("/") or ".." in parts or "\0" in value or not parts[-1]:
        raise InvalidConfig(f'Invalid value: {value}: write an absolute path, without ".."')


_PATH = Type("string", _path)
_KEYS = options(
    ("gid", UNIX_ID, "0"),
    ("major", UINT32, "the host's"),
    ("minor", UINT32, "the host's"),
    ("mode", MODE, "0660"),
    ("path", _PATH),
    ("required", BOOL, "true"),
    ("source", _PATH),
    ("uid", UNIX_ID, "0"),
)


def _check(given: Options) -> None:
    if not given.get("source") and not given.get("path"):
        raise InvalidConfig('Unix device entry is missing the required "source" or "path" property')
    if bool(given.get("major")) != bool(given.get("minor")):
        raise InvalidConfig("Both major and minor must be supplied for device, or neither")


CHAR = Kind("unix-char", _KEYS, check=_check)
BLOCK = Kind("unix-block", _KEYS, check=_check)


def host_path(given: Options) -> str | None:
    """Return the host path to look at before `plan`; None when the options say it all."""
    if given.get("type") not in _KINDS or given.get("major"):
        return None
    return given.get("source") or given["path"]


def path(given: Options) -> str:
    """Return where the instance sees the node."""
    return posixpath.normpath(given.get("path") or given["source"])


def is_elsewhere(given: Options) -> bool:
    """Whether a device shows its node outside of /dev: on a mount of its own."""
    return given.get("type") in _KINDS and not path(given).startswith("/dev/")


def plan(device: str, given: Options, found: HostNode | None) -> Node | None:
    """Return the node; None when its host device is missing and not required.

    Raises Failed when it is missing, or of the other kind.
    """
    kind = _KINDS[given["type"]]
    major, minor = given.get("major"), given.get("minor")
    if major and minor:
        found = HostNode(kind, int(major), int(minor))
    if found is None:
        if is_false(given.get("required")):
            return None
        raise Failed(
            f'Failed to start device "{device}": The required device path doesn\'t exist and the '
            f"major and minor settings are not specified: {host_path(given)}"
        )
    if found.kind != kind:
        name = "block" if found.kind == "b" else "character"
        raise Failed(
            f'Failed to start device "{device}": Path specified is not a {given["type"]} device: '
            f"{host_path(given)} is a {name} device"
        )
    return Node(
        path=path(given),
        kind=kind,
        major=found.major,
        minor=found.minor,
        mode=int(given.get("mode") or "0660", 8),
        uid=int(given.get("uid") or 0),
        gid=int(given.get("gid") or 0),
        device=device,
    )
