"""nftables of pairs that are on no bridge: a table of family netdev for each host's end."""

from __future__ import annotations

from lxpy.networks.firewall import limit_rules, run_nft
from lxpy.networks.nic import Nic
from lxpy.networks.render import render
from lxpy.threads import in_thread

#: only what the host routes to a link may come from it; probes have no address yet
_OWN_ADDRESSES = (
    "meta protocol ip ip saddr != 0.0.0.0 fib saddr . iif oif missing drop",
    "meta protocol ip6 ip6 saddr != { ::, fe80::/10 } fib saddr . iif oif missing drop",
)


def rules_of(nic: Nic) -> list[str]:
    """Return the rules for what a nic sends, in order; none where it is free to send anything."""
    return [*(_OWN_ADDRESSES if nic.kind == "routed" else ()), *limit_rules(nic)]


async def apply(link: str, nic: Nic) -> None:
    """Make an interface's table what the nic asks for. Raises MissingTool, Failed."""
    rules = rules_of(nic)
    if not rules:
        await remove(link)
        return
    text = await in_thread(render, "link.nft.j2", table=_table(link), link=link, rules=rules)
    await run_nft(text)


async def remove(link: str) -> None:
    """Remove an interface's table, which is perhaps not there. Raises MissingTool, Failed."""
    name = _table(link)
    await run_nft(f"add table netdev {name}\ndelete table netdev {name}\n")


def _table(link: str) -> str:
    return "lxpy_" + "".join(c if c.isalnum() else f"_{ord(c):x}_" for c in link)
