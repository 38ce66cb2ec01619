"""docs/reference.md and docs/openapi.json, made of what the code declares.

    PYTHONPATH=. python -m tests.reference          (make reference; as root, it starts a daemon)

`tests/unit/test_reference.py` and `tests/system/test_openapi.py` fail when they are not as made.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lxpy.api import extensions
from lxpy.instances.devices import disk, hardware, nic_kinds, proxy, unix
from lxpy.instances.devices.base import Kind
from lxpy.instances.keys import INSTANCE_KEYS
from lxpy.keys import ConfigKey, Keys
from lxpy.networks import keys as networks
from lxpy.networks import parentkeys
from lxpy.services.projects.keys import PROJECT_KEYS
from lxpy.services.server.keys import SERVER_KEYS
from lxpy.storage.keys import POOL_KEYS, VOLUME_KEYS
from tests.support.daemon import REPOSITORY, Daemon, install_commands

DOCS = REPOSITORY / "docs"
_HEAD = """# Reference

All keys, devices and extensions, made of their declarations by `make reference`. A `*` stands for
any name; keys that are *live* take effect on what runs. What they mean is told in the pages of
[index.md](index.md), and in LXD's documentation."""
_DEVICES: Mapping[str, Kind] = {
    "disk": disk.DISK,
    **{f"nic, nictype={name}": kind for name, kind in nic_kinds.KINDS.items()},
    "proxy": proxy.PROXY,
    "unix-char": unix.CHAR,
    "unix-block": unix.BLOCK,
    **hardware.KINDS,
}


def reference() -> str:
    """The text of docs/reference.md."""
    parts = [_HEAD]
    parts += _section("Instances and profiles", INSTANCE_KEYS)
    parts += _section("Projects", PROJECT_KEYS)
    parts += _section("Server", SERVER_KEYS)
    for driver, keys in POOL_KEYS.items():
        parts += _section(f"Storage pools, driver {driver}", keys)
    volumes = {tuple(keys): [d for d in VOLUME_KEYS if VOLUME_KEYS[d] is keys] for keys in
               VOLUME_KEYS.values()}  # fmt: skip
    for table, drivers in volumes.items():
        parts += _section(f"Storage volumes, driver {' and '.join(drivers)}", table)
    parts += _section("Networks, type bridge", networks.BRIDGE)
    for kind, keys in parentkeys.KEYS.items():
        parts += _section(f"Networks, type {kind}", keys)
    for title, device in _DEVICES.items():
        parts += _section(f"Devices, type {title}", device.keys, device)
    parts += ["", "## API extensions", ""]
    parts.append(", ".join(f"`{name}`" for name in sorted(extensions.EXTENSIONS)) + ".")
    return "\n".join(parts) + "\n"


def _section(title: str, keys: Keys | Iterable[ConfigKey], device: Kind | None = None) -> list[str]:
    rows = list(_rows(keys, device))
    live = any(row[3] for row in rows)
    told = any(row[4] for row in rows)
    columns = [0, 1, 2, *([3] if live else []), *([4] if told else [])]
    heads = ("Key", "Type", "Default", "Live", "Meaning")
    lines = [["", *(heads[c] for c in columns), ""], ["", *("---" for _ in columns), ""]]
    lines += [["", *(row[c] for c in columns), ""] for row in rows]
    return ["", f"## {title}", "", *(" | ".join(line).strip() for line in lines)]


def _rows(keys: Iterable[ConfigKey], device: Kind | None) -> Iterator[tuple[str, ...]]:
    for key in sorted(keys, key=lambda each: each.name):
        if device is not None and key.name in device.later:
            continue  # known, and refused
        name = f"`{key.name}`" + (", required" if device and key.name in device.required else "")
        default = f"`{key.default}`" if key.default else ""
        meaning = key.description.replace("|", "\\|")
        yield name, key.type.name, default, "yes" if key.live else "", meaning


def openapi(daemon: Daemon) -> str:
    """The text of docs/openapi.json."""
    _, _, data = daemon.api.raw("GET", "/1.0/openapi.json")
    found: dict[str, Any] = json.loads(data)
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Write both."""
    (DOCS / "reference.md").write_text(reference())
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="lxpy-reference-") as directory:
        place = Path(directory)
        place.chmod(0o711)
        daemon = Daemon(place / "d", install_commands(place / "bin"))
        try:
            (DOCS / "openapi.json").write_text(openapi(daemon.start()))
            daemon.remove()
        finally:
            daemon.destroy()


if __name__ == "__main__":
    main()
