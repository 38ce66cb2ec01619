"""Interfaces of the host for tests: pairs whose far end is in a network namespace of its own."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path
from typing import Any

_NUMBERS = itertools.count(1)
LINKS = Path("/sys/class/net")


class Wire:
    """The interface `near` of the host leads to `far0`, behind which a namespace is the world."""

    def __init__(self) -> None:
        tag = f"{os.getpid() % 100000:05}{next(_NUMBERS)}"
        self.near = f"ltw{tag}"
        self.namespace = f"ltn{tag}"
        _ip("netns", "add", self.namespace)
        far = f"ltf{tag}"
        _ip("link", "add", self.near, "type", "veth", "peer", "name", far)
        _ip("link", "set", far, "netns", self.namespace, "name", "far0")
        self.far("ip", "link", "set", "lo", "up")
        self.far("ip", "link", "set", "far0", "up")
        _ip("link", "set", self.near, "up")

    def far(self, *words: str, check: bool = True, **options: Any) -> str:
        """Run a program in the far namespace; what it prints."""
        done = self.popen_words(*words)
        result = subprocess.run(
            done, check=False, capture_output=True, text=True, timeout=60, **options
        )
        assert not check or result.returncode == 0, f"{words}: {result.stderr}"
        return result.stdout

    def popen_words(self, *words: str) -> tuple[str, ...]:
        """The command that runs a program in the far namespace, /sys being this one's."""
        return ("nsenter", f"--net=/run/netns/{self.namespace}", *words)

    def pings(self, address: str) -> bool:
        """Whether an address answers a ping of the far namespace within two seconds."""
        words = self.popen_words("busybox", "ping", "-c", "1", "-W", "2", address)
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def sysctl(self, name: str, value: str) -> None:
        """Set net.FAMILY.conf.NEAR.NAME, given as FAMILY/NAME."""
        family, _, key = name.partition("/")
        Path(f"/proc/sys/net/{family}/conf/{self.near}/{key}").write_text(value)

    def remove(self) -> None:
        """Take everything away."""
        subprocess.run(["ip", "link", "delete", self.near], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "delete", self.namespace], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
