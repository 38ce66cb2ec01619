"""Looks at and changes interfaces in the network namespace of an instance.

This daemon enters no namespace: `nsenter` and `ip` do, as programs of their own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxpy.errors import Failed
from lxpy.programs import run


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace, by the file that it is: /proc/PID/ns/net, or a mount of it."""

    path: str

    @classmethod
    def of(cls, pid: int) -> Namespace:
        """Return that of a process."""
        return cls(f"/proc/{pid}/ns/net")

    async def configure(self, commands: Iterable[str]) -> None:
        """Run commands of ip(8), such as "route add ...", up to the first that fails.

        Raises Failed, MissingTool.
        """
        text = "".join(f"{each}\n" for each in commands)
        await run("nsenter", f"--net={self.path}", "ip", "-batch", "-", input=text.encode())

    async def find(self, index: int, hwaddr: str) -> str:
        """Return the name of an interface by its number, else by its MAC address; "" for none."""
        done = await run("nsenter", f"--net={self.path}", "ip", "-json", "link", "show")
        found: list[dict[str, Any]] = json.loads(done.stdout or b"[]")
        for key, wanted in (("ifindex", index), ("permaddr", hwaddr), ("address", hwaddr)):
            for each in found:
                if wanted and each.get(key) == wanted and each.get("link_type") != "loopback":
                    return str(each["ifname"])
        return ""

    async def delete(self, index: int) -> None:
        """Delete an interface; one that is gone is fine. Raises Failed."""
        name = await self.find(index, "")
        if name:
            await self._link("delete", "dev", name)

    async def _link(self, *words: str) -> None:
        """Run `ip link`: a name that the guest has chosen is one word here, whatever is in it."""
        await run("nsenter", f"--net={self.path}", "ip", "link", *words)

    async def give_back(self, index: int, hwaddr: str, name: str) -> bool:
        """Move an interface to the host's namespace, under a name that is free there.

        False when it is not in here. Raises Failed.
        """
        inside = await self.find(index, hwaddr)
        if not inside:
            return False
        await self._link("set", "dev", inside, "down")
        await self._link("set", "dev", inside, "name", name)
        await self._link("set", "dev", name, "netns", str(os.getpid()))
        return True


def of_mount(place: Path | None) -> Namespace:
    """Return the namespace that is held by a mount. Raises Failed when none is."""
    if place is None:
        raise Failed("The network namespace of the instance is not held any more")
    return Namespace(str(place))
