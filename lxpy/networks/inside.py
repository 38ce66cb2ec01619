"""Changes interfaces in the network namespace of an instance.

This daemon enters no namespace: `nsenter` does, with `ip`, or with a few lines of netlink where a
name is not to be trusted: the guest may have called an interface anything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from lxpy.errors import Failed
from lxpy.programs import run

_GONE = 3
#: deletes the interface of a number, or switches it off and moves it to a process's namespace.
#: Source: rtnetlink(7); attributes 3 and 19 of a link are its name and IFLA_NET_NS_PID.
_SCRIPT = f"""
import errno, os, socket, struct, sys
index, pid, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()
link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
def ask(kind, change, attributes):
    body = struct.pack("=BxHiII", 0, 0, index, 0, change) + attributes
    link.send(struct.pack("=IHHII", 16 + len(body), kind, 5, 1, 0) + body)
    code = struct.unpack_from("=i", link.recv(65536), 16)[0]
    if code == -errno.ENODEV:
        sys.exit({_GONE})
    if code:
        sys.exit(os.strerror(-code))
if not pid:
    ask(17, 0, b"")
else:
    named = name + b"\\0" * (4 - len(name) % 4)
    ask(19, 1, b"")
    ask(19, 0, struct.pack("=HHI", 8, 19, pid)
        + struct.pack("=HH", 5 + len(name), 3) + named)
"""


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

    async def delete(self, index: int) -> None:
        """Delete an interface; one that is gone is fine. Raises Failed."""
        await self._change(index, 0, "")

    async def give_back(self, index: int, name: str) -> bool:
        """Move an interface to the host's namespace, under a name that is free there.

        False when it is not in here. Raises Failed.
        """
        return await self._change(index, os.getpid(), name)

    async def _change(self, index: int, pid: int, name: str) -> bool:
        words = (sys.executable, "-I", "-S", "-c", _SCRIPT, str(index), str(pid), name)
        done = await run("nsenter", f"--net={self.path}", *words, check=False)
        if done.returncode not in (0, _GONE):
            reason = done.stderr.decode(errors="replace").strip()
            raise Failed(f"Failed to take interface {index} out of an instance: {reason}")
        return done.returncode == 0
