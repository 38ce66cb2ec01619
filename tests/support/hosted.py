"""Tiny instances that see the host's programs: curl and python where no distribution is needed."""

from __future__ import annotations

from typing import Any

from tests.support.daemon import Daemon
from tests.support.fixtures import Launch

USR = {"type": "disk", "source": "/usr", "path": "/usr", "readonly": "true"}


def launch_hosted(daemon: Daemon, launch: Launch, **fields: Any) -> str:
    """Launch one; fields as those of `launch`."""
    devices = {"usr": USR, **fields.pop("devices", {})}
    name = launch(devices=devices, **fields)
    daemon.exec(name, "sh", "-c", "ln -s usr/lib /lib; ln -s usr/lib64 /lib64")
    return name


def python(daemon: Daemon, name: str, program: str, **options: Any) -> str:
    """What a program prints that the host's Python runs inside."""
    return daemon.out(name, "/usr/bin/python3", "-I", "-S", "-c", program, **options)
