"""Kernel settings of bridges and of forwarding. Blocking, but for microseconds only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import structlog

_PROC = Path("/proc/sys/net")

_log = structlog.get_logger()


def has_ipv6(proc: Path = _PROC) -> bool:
    """Tell whether this host speaks IPv6."""
    try:
        return (proc / "ipv6/conf/all/disable_ipv6").read_text().strip() == "0"
    except OSError:
        return False


def filters_bridges(proc: Path = _PROC) -> bool:
    """Tell whether rules for IP packets see what is bridged, too (br_netfilter)."""
    found = []
    for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
        try:
            found.append((proc / "bridge" / name).read_text().strip() == "1")
        except OSError:
            continue
    return any(found)


def turn_back(port: str, sys: Path = Path("/sys")) -> None:
    """Let a bridge send packets out of the port that they came from (hairpin mode)."""
    mode = sys / "class/net" / port / "brport/hairpin_mode"
    if mode.exists():
        _write(mode, "1")


def prepare_bridge(name: str, *, ipv6: bool, proc: Path = _PROC) -> None:
    """Make a bridge that has an IPv6 address a router, and one that has none silent."""
    conf = proc / "ipv6/conf" / name
    if not conf.exists():
        return
    for setting, value in (
        ("disable_ipv6", "0" if ipv6 else "1"),
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("accept_dad", "0"),
    ):
        _write(conf / setting, value)


def prepare_link(name: str, *, ipv4: bool, ipv6: bool, proc: Path = _PROC) -> None:
    """Make the host's end of a routed pair pass packets on."""
    if ipv4:
        _write(proc / "ipv4/conf" / name / "forwarding", "1")
    conf = proc / "ipv6/conf" / name
    if ipv6 and conf.exists():
        for setting, value in (
            ("disable_ipv6", "0"),
            ("accept_dad", "0"),
            ("accept_ra", "0"),
            ("forwarding", "1"),
        ):
            _write(conf / setting, value)


def read(name: str, interface: str, proc: Path = _PROC) -> str:
    """Return a setting "net.ipv4.conf.INTERFACE.forwarding"; "" when there is none.

    The interface's name may have dots.
    """
    before, _, after = name.removeprefix("net.").partition(f".{interface}.")
    parts = [*before.split("."), interface, after] if after else before.split(".")
    try:
        return proc.joinpath(*parts).read_text().strip()
    except OSError:
        return ""


def forward(*, ipv4: bool, ipv6: bool, proc: Path = _PROC) -> None:
    """Let the host forward packets.

    A host that forwards IPv6 stops listening to routers; those that it has listened to so far keep
    being heard (accept_ra=2), so that it does not lose its own way out.
    """
    if ipv4:
        _write(proc / "ipv4/ip_forward", "1")
    if ipv6:
        for conf in _listening(proc / "ipv6/conf"):
            _write(conf / "accept_ra", "2")
        _write(proc / "ipv6/conf/all/forwarding", "1")


def _listening(confs: Path) -> Iterator[Path]:
    for conf in confs.iterdir():
        try:
            if conf.name != "all" and (conf / "accept_ra").read_text().strip() == "1":
                yield conf
        except OSError:
            continue  # an interface that goes away


def _write(path: Path, value: str) -> None:
    """Write a setting that has another value: /proc/sys may be read-only, and right."""
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        _log.warning("kernel setting not changed", path=str(path), value=value, error=str(error))
