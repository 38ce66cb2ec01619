"""One dnsmasq for each network: DHCP, DNS, router advertisements.

It goes on while the daemon is away and is taken over when the daemon comes back; when it ends
without being asked, it is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path

import structlog

from lxpy.errors import Failed, LxpyError
from lxpy.networks import addresses
from lxpy.networks.keys import Bridge
from lxpy.networks.leases import Hosts, Lease, Reservation, read_leases, release
from lxpy.networks.render import render
from lxpy.programs import run
from lxpy.threads import in_thread

_log = structlog.get_logger()

_USERS = ("dnsmasq", "nobody")
_RESOLVERS = Path("/etc/resolv.conf")
_MAX_LEASES = 65_536
_END_TIMEOUT_S = 5.0
_FIRST_DELAY_S, _LAST_DELAY_S = 0.5, 60.0


def configuration(config: Bridge, directory: Path, user: str) -> str:
    """Return dnsmasq's configuration file for a network."""
    ipv4, ipv6 = config.ipv4, config.ipv6
    ranges4, ranges6 = config.dhcp_ranges("ipv4"), config.dhcp_ranges("ipv6")
    stateful = config.flag("ipv6.dhcp.stateful")
    lent = addresses.size(ranges4) + (addresses.size(ranges6) if stateful else 0)
    domain = config.text("dns.domain")
    return render(
        "dnsmasq.conf.j2",
        bridge=config.name,
        addresses=[str(each) for each in (ipv4, ipv6) if each is not None],
        directory=directory,
        user=user,
        leases=max(1, min(lent, _MAX_LEASES)),
        dns=config.text("dns.mode") != "none",
        managed=config.text("dns.mode") == "managed",
        domain=domain,
        search=config.items("dns.search"),
        mtu=config.mtu,
        gateway=config.text("ipv4.dhcp.gateway"),
        ipv4_routing=config.flag("ipv4.routing"),
        ranges4=ranges4,
        netmask=ipv4.netmask if ipv4 is not None else "",
        expiry4=_expiry(config.text("ipv4.dhcp.expiry")),
        ipv6=ipv6 is not None,
        stateful=stateful,
        ranges6=ranges6,
        prefix6=ipv6.network.prefixlen if ipv6 is not None else 0,
        expiry6=_expiry(config.text("ipv6.dhcp.expiry")),
        raw=bool(config.text("raw.dnsmasq")),
    )


def _expiry(text: str) -> str:
    """Return a lease time for dnsmasq, which lends for two minutes at least."""
    return text.removesuffix("s")


class Dnsmasq:
    """The dnsmasq of one network, whose files lie in `directory`."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.hosts = Hosts(directory / "dnsmasq.hosts")
        self._conf = directory / "dnsmasq.conf"
        self._pidfd = -1
        self._restarting: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether it runs, as far as we know."""
        return self._pidfd >= 0

    async def start(self, config: Bridge) -> None:
        """Run it with this config: the one that runs is taken over if it has the same.

        Raises MissingTool; Failed when it refuses its configuration or its addresses are taken.
        """
        if config.ipv4 is None and config.ipv6 is None:
            await self.remove()  # what it has lent counts no more
            return
        changed = await in_thread(self._write, config)
        await self._adopt()
        if self.running and changed:
            await self.stop()
        if not self.running:
            await self._run()

    def _write(self, config: Bridge) -> bool:
        """Write its files; False when nothing is different."""
        (self.directory / "dnsmasq.hosts").mkdir(mode=0o755, parents=True, exist_ok=True)
        text = configuration(config, self.directory, _user())
        raw = config.text("raw.dnsmasq").rstrip("\n") + "\n"
        changed = False
        for path, wanted in ((self._conf, text), (self.directory / "dnsmasq.raw", raw)):
            if not path.exists() or path.read_text() != wanted:
                path.write_text(wanted)
                changed = True
        return changed

    async def _run(self) -> None:
        """Start it: it answers when the command, which leaves it behind, has ended."""
        options = [] if await in_thread(can_be_watched, _RESOLVERS) else ["--no-resolv"]
        await run("dnsmasq", f"--conf-file={self._conf}", *options, timeout_s=20)
        await self._adopt()
        if not self.running:
            raise Failed(f'dnsmasq of network "{self.name}" ended at once: see the system log')

    async def _adopt(self) -> None:
        """Find the process that runs with our configuration, and watch it."""
        if self._pidfd >= 0:
            return
        pid = await in_thread(find_process, self._conf)
        if not pid:
            return
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(pid)
            asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def _ended(self) -> None:
        """It has ended, and we did not ask for it."""
        self._forget()
        _log.warning("dnsmasq ended unexpectedly, starting it again", network=self.name)
        if self._restarting is None:
            self._restarting = asyncio.get_running_loop().create_task(self._restart())

    async def _restart(self) -> None:
        delay_s = _FIRST_DELAY_S
        try:
            while not self.running:
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _LAST_DELAY_S)
                try:
                    await self._run()
                except LxpyError as error:
                    _log.warning("dnsmasq does not start", network=self.name, error=str(error))
        finally:
            self._restarting = None

    def _forget(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    async def reload(self) -> None:
        """Let it read the reservations again."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGHUP)

    async def reserve(self, reservation: Reservation) -> None:
        """Make the name and addresses of a nic known."""
        if await in_thread(self.hosts.write, reservation):
            await self.reload()

    async def replace(self, wanted: Iterable[Reservation], instance: str = "") -> None:
        """Make these the only reservations (of an instance)."""
        if await in_thread(self.hosts.replace, list(wanted), instance):
            await self.reload()

    async def withdraw(self, instance: str, server: str) -> None:
        """Forget an instance: its reservations, and what it has been lent by `server`."""
        known = {each.hwaddr for each in await in_thread(self.hosts.of, instance)}
        if not known:
            return
        await self.replace((), instance)
        if server and self.running:
            mine = [each for each in await self.leases() if each.hwaddr in known]
            with contextlib.suppress(OSError):
                release(self.name, server, mine)

    async def leases(self) -> list[Lease]:
        """Return what it has lent."""
        return await in_thread(read_leases, self.directory / "dnsmasq.leases")

    async def stop(self) -> None:
        """End it. Idempotent."""
        await self.leave()
        await self._adopt()
        pidfd = self._pidfd
        if pidfd < 0:
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(pidfd, ended.set)
        try:
            for signum in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signum)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_END_TIMEOUT_S):
                        await ended.wait()
                    break
        finally:
            self._forget()

    async def leave(self) -> None:
        """Stop watching it; it goes on."""
        if self._restarting is not None:
            self._restarting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._restarting
        self._forget()

    async def remove(self) -> None:
        """End it and delete its files."""
        await self.stop()
        await in_thread(shutil.rmtree, self.directory, ignore_errors=True)


def can_be_watched(resolvers: Path) -> bool:
    """Tell whether a list of name servers can come and go: without its directory dnsmasq ends.

    It is a link to what systemd-resolved writes, or does not where that is not running.
    """
    return resolvers.resolve().parent.is_dir()


def find_process(conf: Path) -> int:
    """Return the pid of the dnsmasq that runs with a configuration file, 0 for none. Blocking.

    Its pid file is only a hint: another process may have that number by now.
    """
    try:
        hint = int((conf.parent / "dnsmasq.pid").read_text())
    except (OSError, ValueError):
        hint = 0
    if hint and _runs_with(hint, conf):
        return hint
    pids = (int(each) for each in os.listdir("/proc") if each.isdigit())
    return next((pid for pid in pids if _runs_with(pid, conf)), 0)


def _runs_with(pid: int, conf: Path) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[0].endswith(b"dnsmasq") and f"--conf-file={conf}".encode() in words


def _user() -> str:
    """Return the account that dnsmasq is to run as: the one made for it, if there is one."""
    for name in _USERS:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return "root"
