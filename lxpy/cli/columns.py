"""The columns of `lxpy list`: letters as in `lxc list -c`, and keys of config and devices."""

from __future__ import annotations

from lxpy.cli import texts
from lxpy.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lxpy.client.client import Json

    Cell = Callable[[Json], str]

DEFAULT = "ns46tS"
FAST = "nsacPt"
#: Letters whose cells need the instances' state.
STATEFUL = frozenset("46DmMNpu")
#: Letters whose cells need snapshots.
WITH_SNAPSHOTS = frozenset("S")
# Further keys of the instance that may be columns of their own.
_OTHER_TITLES = {"image.os": "IMAGE OS"}


def _addresses(instance: Json, family: str) -> str:
    """Return the global addresses with their interfaces, a line each."""
    if instance["status"] not in ("Running", "Frozen", "Ready"):
        return ""
    found = []
    for name, card in ((instance.get("state") or {}).get("network") or {}).items():
        if card["type"] == "loopback":
            continue
        found += [
            f"{address['address']} ({name})"
            for address in card["addresses"] or []
            if address["family"] == family and address["scope"] not in ("link", "local")
        ]
    return "\n".join(sorted(found, reverse=True))


def _running(instance: Json) -> Json:
    """Return the state of an instance that has processes, or {}."""
    state: Json = instance.get("state") or {}
    return state if state.get("pid", 0) > 0 else {}


def _memory_bytes(instance: Json) -> int:
    return int((_running(instance).get("memory") or {}).get("usage") or 0)


def _memory(instance: Json) -> str:
    from lxpy.units import format_size

    usage = _memory_bytes(instance)
    return format_size(usage) if usage else ""


def _memory_share(instance: Json) -> str:
    """Return the share of `limits.memory`, or of what the server says is there."""
    from lxpy.units import parse_size

    limit = instance["expanded_config"].get("limits.memory", "")
    if limit.endswith("%"):
        return ""
    total = parse_size(limit)
    total = total or int((_running(instance).get("memory") or {}).get("total") or 0)
    return f"{_memory_bytes(instance) * 100 / total:.1f}%" if total else ""


def _disk(instance: Json) -> str:
    from lxpy.units import format_size

    usage = ((instance.get("state") or {}).get("disk") or {}).get("root", {}).get("usage", 0)
    return format_size(usage) if usage else ""


def _cpu(instance: Json) -> str:
    usage = (_running(instance).get("cpu") or {}).get("usage", 0)
    return f"{usage // 1_000_000_000}s" if _running(instance) else ""


def _number(instance: Json, key: str) -> str:
    return str(_running(instance)[key]) if _running(instance) else ""


def _pool(instance: Json) -> str:
    for device in instance["expanded_devices"].values():
        if device.get("type") == "disk" and device.get("path") == "/":
            return str(device.get("pool", ""))
    return ""


def _type(instance: Json) -> str:
    kind = str(instance["type"]).upper()
    return f"{kind} (EPHEMERAL)" if instance["ephemeral"] else kind


def _image(instance: Json) -> str:
    return str(instance["config"].get("volatile.base_image", ""))


#: Title and cell of each letter.
LETTERS: dict[str, tuple[str, Cell]] = {
    "4": ("IPV4", lambda each: _addresses(each, "inet")),
    "6": ("IPV6", lambda each: _addresses(each, "inet6")),
    "a": ("ARCHITECTURE", lambda each: str(each["architecture"])),
    "b": ("STORAGE POOL", _pool),
    "c": ("CREATED AT", lambda each: texts.date(each["created_at"])),
    "d": ("DESCRIPTION", lambda each: str(each["description"])),
    "D": ("DISK USAGE", _disk),
    "e": ("PROJECT", lambda each: str(each.get("project") or "default")),
    "l": ("LAST USED AT", lambda each: texts.date(each["last_used_at"])),
    "m": ("MEMORY USAGE", _memory),
    "M": ("MEMORY USAGE%", _memory_share),
    "n": ("NAME", lambda each: str(each["name"])),
    "N": ("PROCESSES", lambda each: _number(each, "processes")),
    "p": ("PID", lambda each: _number(each, "pid")),
    "P": ("PROFILES", lambda each: "\n".join(each["profiles"] or [])),
    "s": ("STATE", lambda each: str(each["status"]).upper()),
    "S": ("SNAPSHOTS", lambda each: str(len(each.get("snapshots") or []))),
    "t": ("TYPE", _type),
    "u": ("CPU USAGE", _cpu),
    "L": ("LOCATION", lambda each: str(each.get("location") or "")),
    "f": ("BASE IMAGE", lambda each: _image(each)[:12]),
    "F": ("BASE IMAGE", _image),
}


def parse(text: str) -> Iterator[tuple[str, Cell, str]]:
    """Yield title, cell and letter ("" for a key) of the columns that -c names.

    Raises BadRequest for an unknown letter or a malformed key.
    """
    for word in text.split(","):
        if not word:
            raise BadRequest(
                f"Empty column entry (redundant, leading or trailing command) in '{text}'"
            )
        if "." not in word and ":" not in word:
            for letter in word:
                if letter not in LETTERS:
                    raise BadRequest(f"Unknown column shorthand char '{letter}' in '{word}'")
                title, cell = LETTERS[letter]
                yield title, cell, letter
        else:
            yield (*_key(word), "")


def _key(word: str) -> tuple[str, Cell]:
    """Return title and cell of "[config:|devices:]key[:title][:width]". Raises BadRequest."""
    parts = word.split(":")
    area = parts.pop(0) if parts[0] in ("config", "devices") else "config"
    if not parts or len(parts) > 3 or (area == "devices" and "." not in parts[0]):
        raise BadRequest(f"Invalid config key column format (too many fields): '{word}'")
    key = parts[0]
    title = parts[1] if len(parts) > 1 else _OTHER_TITLES.get(key, key.upper())
    width = _max_width(parts[2] if len(parts) > 2 else "", word)
    width = len(title) if width == 0 else width

    def cell(instance: Json) -> str:
        if area == "devices":
            device, _, option = key.partition(".")
            value = str(instance["expanded_devices"].get(device, {}).get(option, ""))
        else:
            value = str(instance["expanded_config"].get(key, ""))
        return value[:width] if width > 0 else value

    return title, cell


def _max_width(text: str, word: str) -> int:
    """Return the width a column is cut to, -1 for none. Raises BadRequest."""
    if not text:
        return -1
    if text.lstrip("-").isdigit() and int(text) >= -1:
        return int(text)
    raise BadRequest(
        f"Invalid max width (must be -1, 0 or a positive integer) '{text}' in '{word}'"
    )
