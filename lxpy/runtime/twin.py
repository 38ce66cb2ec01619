"""A dump made one of another instance: with its own name, ids and addresses.

Files are as `criu_images` knows them. Blocking. Source: criu's images/*.proto.
"""

from __future__ import annotations

import glob
import json
import os

from lxpy.runtime import criu
from lxpy.runtime.criu_images import Message, read_records, write_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_UTS_NODENAME = 1
_USERNS_MAPS = (1, 2)
_EXTENT_OUTSIDE, _EXTENT_COUNT = 2, 3
_GROUPS_HIERARCHIES, _HIERARCHY_TOP = 2, 2
_DIRECTORY_BELOW, _DIRECTORY_FILES, _DIRECTORY_OWNER, _FILE_OWNER = 2, 3, 4, 3
_OWNER_IDS = (2, 3)
_DEVICE_NAME, _DEVICE_ADDRESS = 5, 7


def adapt(
    directory: str, *, name: str, hostname: str, shift: int, hwaddrs: Mapping[str, str]
) -> None:
    """Make a dump that of the instance `name`.

    `hostname` "" leaves that. `shift` is added to each id of the host, `hwaddrs` are the addresses
    of its interfaces by their names inside. Their network addresses stay, as sockets are bound to
    them: they are for the caller to take away before the processes go on.

    Raises OSError, ValueError.
    """
    if hostname:
        _edit(directory, "utsns-*.img", lambda uts: uts.set(_UTS_NODENAME, hostname.encode()))
    _edit(directory, "userns-*.img", lambda userns: _shift(userns, shift))
    _edit(directory, "cgroup.img", lambda tree: _shift_groups(tree, shift))

    def readdress(device: Message) -> None:
        given = hwaddrs.get(device.text(_DEVICE_NAME))
        if given is not None:
            device.set(_DEVICE_ADDRESS, bytes.fromhex(given.replace(":", "")))

    _edit(directory, "netdev-*.img", readdress)
    _adapt_manifest(directory, name, shift)


def ids(directory: str) -> tuple[int, int] | None:
    """Return the first id of the host that a dump is mapped to, and how many there are.

    None for one without a user namespace. Raises OSError, ValueError.
    """
    for path in glob.glob(f"{directory}/userns-*.img"):
        for record in read_records(path)[1]:
            extents = Message(record).messages(_USERNS_MAPS[0])
            first = min(each.number(_EXTENT_OUTSIDE) for each in extents)
            return first, sum(each.number(_EXTENT_COUNT) for each in extents)
    return None


def _edit(directory: str, pattern: str, change: Callable[[Message], None]) -> None:
    for path in glob.glob(f"{directory}/{pattern}"):
        head, records = read_records(path)
        messages = [Message(each) for each in records]
        for message in messages:
            change(message)
        write_records(path, head, [message.encode() for message in messages])


def _shift(userns: Message, shift: int) -> None:
    def move(extent: Message) -> None:
        extent.set(_EXTENT_OUTSIDE, extent.number(_EXTENT_OUTSIDE) + shift)

    for field in _USERNS_MAPS:
        userns.each(field, move)


def _shift_groups(tree: Message, shift: int) -> None:
    """Move the owners of control groups, which CRIU gives to those that are there, too."""

    def move(owner: Message) -> None:
        for field in _OWNER_IDS:
            if owner.number(field):
                owner.set(field, owner.number(field) + shift)

    def directory(group: Message) -> None:
        group.each(_DIRECTORY_OWNER, move)
        group.each(_DIRECTORY_FILES, lambda file: file.each(_FILE_OWNER, move))
        group.each(_DIRECTORY_BELOW, directory)

    tree.each(_GROUPS_HIERARCHIES, lambda hierarchy: hierarchy.each(_HIERARCHY_TOP, directory))


def _adapt_manifest(directory: str, name: str, shift: int) -> None:
    path = f"{directory}/{criu.MANIFEST}"
    with open(path, encoding="utf-8") as file:
        manifest = json.load(file)
    manifest["name"] = name
    manifest["cgroups"] = [
        [group, uid + shift if uid else 0, gid + shift if gid else 0, controllers]
        for group, uid, gid, controllers in manifest["cgroups"]
    ]
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(manifest, file)
    os.rename(f"{path}.new", path)
