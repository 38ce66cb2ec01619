"""The daemon's half of hot-plug: devices of running systems come and go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from lxpy.runtime.link import Link
from lxpy.runtime.running import Running
from lxpy.runtime.spec import Disk, Node, Proxy, encode


class Devices:
    """Devices of what runs; `find` knows it by name, `linked` leads to the supervisor.

    All raise StartFailed.
    """

    def __init__(
        self, find: Callable[[str], Running], linked: Callable[[], Awaitable[Link]]
    ) -> None:
        self._find = find
        self._linked = linked

    async def add_disk(self, name: str, disk: Disk) -> None:
        """Show a host path in it, with the same locked flags as at its start."""
        await self._ask(name, "add-disk", disk=encode(disk))

    async def remove_disk(self, name: str, disk: Disk) -> None:
        """Take a disk away."""
        await self._ask(name, "remove-disk", disk=encode(disk))

    async def add_node(self, name: str, node: Node) -> None:
        """Show a device node in it."""
        await self._ask(name, "add-node", node=encode(node))
        self._find(name).nodes.append(node)

    async def remove_node(self, name: str, node: Node) -> None:
        """Take a device node away."""
        await self._ask(name, "remove-node", node=encode(node))
        running = self._find(name)
        running.nodes = [each for each in running.nodes if each.path != node.path]

    def nodes(self, name: str) -> list[Node]:
        """Return the device nodes that its devices have now."""
        return list(self._find(name).nodes)

    async def uevent(self, name: str, text: str) -> None:
        """Tell those who listen in it what the kernel said."""
        await self._ask(name, "uevent", text=text)

    async def set_proxies(self, name: str, proxies: tuple[Proxy, ...]) -> None:
        """Have its proxies be these; when it fails they are what they were."""
        await self._ask(name, "proxies", proxies=[encode(each) for each in proxies])

    async def _ask(self, name: str, action: str, **device: Any) -> None:
        link = await self._linked()
        await link.request("hotplug", name=name, action=action, **device)
