"""Which instances `lxpy list FILTER...` shows: names, expressions, config, state."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lxpy.client.client import Json

#: Shorthands whose values come with the state of the instance.
STATEFUL = ("ipv4", "ipv6")


def selects(words: Iterable[str], instance: Json) -> bool:
    """Whether an instance satisfies every filter."""
    return all(_selects(word, instance) for word in words)


def _selects(word: str, instance: Json) -> bool:
    key, equals, value = word.partition("=")
    if not equals:
        return _matches(word, str(instance["name"]), end="")
    if key in _SHORTHANDS:
        return any(_SHORTHANDS[key](instance, each.lower()) for each in value.split(","))
    config = instance["expanded_config"]
    return any(
        _matches(value, str(current)) for full, current in config.items() if abbreviates(key, full)
    )


def _matches(pattern: str, text: str, *, end: str = "$") -> bool:
    """Whether a text matches an expression, which is anchored unless it says where."""
    anchored = pattern if "^" in pattern or "$" in pattern else f"^{pattern}{end}"
    try:
        return re.search(anchored, text) is not None
    except re.error:
        return pattern == text


def abbreviates(short: str, full: str) -> bool:
    """Whether "s.privileged" stands for "security.privileged"."""
    shorts, fulls = short.split("."), full.split(".")
    return len(shorts) == len(fulls) and all(
        whole.startswith(part) for part, whole in zip(shorts, fulls, strict=True)
    )


def _has_address(instance: Json, family: str, wanted: str) -> bool:
    import ipaddress  # 3 ms, for a rare filter

    try:
        network = ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        return False
    for card in ((instance.get("state") or {}).get("network") or {}).values():
        for address in card["addresses"] or []:
            if address["family"] == family and ipaddress.ip_address(address["address"]) in network:
                return True
    return False


_SHORTHANDS: dict[str, Callable[[Json, str], bool]] = {
    "type": lambda instance, value: str(instance["type"]).lower() == value,
    "status": lambda instance, value: str(instance["status"]).lower() == value,
    "architecture": lambda instance, value: str(instance["architecture"]).lower() == value,
    "location": lambda instance, value: str(instance.get("location", "")).lower() == value,
    "ipv4": lambda instance, value: _has_address(instance, "inet", value),
    "ipv6": lambda instance, value: _has_address(instance, "inet6", value),
}
