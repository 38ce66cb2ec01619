"""Tiny instances that see the host's programs: curl and python where no distribution is needed."""

from __future__ import annotations

from typing import Any

from tests.support.daemon import Daemon
from tests.support.fixtures import Launch

HOSTED = {
    name: {"type": "disk", "source": f"/usr{path}", "path": path or "/usr", "readonly": "true"}
    for name, path in (("usr", ""), ("lib", "/lib"), ("lib64", "/lib64"))
}


def launch_hosted(launch: Launch, **fields: Any) -> str:
    """Launch one; fields as those of `launch`."""
    return launch(devices={**HOSTED, **fields.pop("devices", {})}, **fields)


def python(daemon: Daemon, name: str, program: str, **options: Any) -> str:
    """What a program prints that the host's Python runs inside."""
    return daemon.out(name, "/usr/bin/python3", "-I", "-S", "-c", program, **options)
