"""Id maps: which host ids an instance's users are, each instance with a range of its own.

Source: user_namespaces(7), subuid(5); LXD docs, "Idmaps for user namespace".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lxpy.errors import InvalidConfig, Unavailable
from lxpy.runtime.spec import IdMapEntry
from lxpy.units import is_true

DEFAULT_SIZE = 65_536
NESTING_SIZE = 1_048_576
DEFAULT_BASE = 1_000_000
# systemd keeps 0x7FFE0000 to 0x7FFEFFFF for files of foreign machines.
DEFAULT_END = 0x7FFE0000
_ID_MAX = (1 << 32) - 2
_ENTRIES_MAX = 340  # user_namespaces(7), since Linux 4.15
_RAW = re.compile(
    r"(uid|gid|both)\s+([0-9]{1,10})(?:-([0-9]{1,10}))?\s+([0-9]{1,10})(?:-([0-9]{1,10}))?"
)
_KINDS: dict[str, tuple[Literal["u", "g"], ...]] = {
    "uid": ("u",),
    "gid": ("g",),
    "both": ("u", "g"),
}

Interval = tuple[int, int]  # first, end (not included)


@dataclass(frozen=True, slots=True)
class IdMap:
    """The ids of one instance; no entries when it is privileged."""

    base: int = 0
    size: int = 0
    entries: tuple[IdMapEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class IdPool:
    """The host ids that instances may have: sorted intervals that do not touch.

    Where `shared`, each instance has all of them, as they are: a nested daemon cannot map the ids
    of files.
    """

    intervals: tuple[Interval, ...] = ((DEFAULT_BASE, DEFAULT_END),)
    shared: bool = False

    def allocate(self, taken: Iterable[tuple[int, int]], size: int = DEFAULT_SIZE) -> int:
        """Return the lowest base of `size` free ids; `taken` are (base, size), in any order.

        Raises Unavailable when the pool is used up.
        """
        used = sorted((base, base + length) for base, length in taken if length > 0)
        for first, end in self.intervals:
            base = first
            for low, high in used:
                if high <= base:
                    continue
                if low >= base + size or low >= end:
                    break
                base = high
            if base + size <= end:
                return base
        total = sum(end - first for first, end in self.intervals)
        raise Unavailable(
            f"Not enough uid/gid available for the container: no {size} ids in a row are free of "
            f"{total} in {self.describe()}; delete instances, lower security.idmap.size, or give "
            "root more ids in /etc/subuid and /etc/subgid"
        )

    def describe(self) -> str:
        """Return the pool as text: "1000000-2147352575"."""
        return ", ".join(f"{first}-{end - 1}" for first, end in self.intervals) or "an empty pool"


def pool_of(subuid: str, subgid: str, uid_map: str = "", gid_map: str = "") -> IdPool:
    """Return the pool by the texts of /etc/subuid, /etc/subgid and /proc/self/{u,g}id_map.

    Root's own ranges, where both files give it at least one of 65536 ids; else the default range.
    Never what other users have: LXD's package gives root and _lxd the same ids, and uses them.
    In a nested daemon, the ids of its own namespace from 0 on.
    """
    known = _intersect(_mapped(uid_map), _mapped(gid_map))
    if known and known != [(0, _ID_MAX + 1)]:
        return IdPool((known[0],), shared=True)
    users = _subids(subuid, root=False) + _subids(subgid, root=False)
    own = _subtract(
        _join(_intersect(_subids(subuid, root=True), _subids(subgid, root=True))), users
    )
    own = [each for each in own if each[1] - each[0] >= DEFAULT_SIZE]
    if not own:
        own = _subtract([(DEFAULT_BASE, DEFAULT_END)], users)
    return IdPool(tuple(own))


def read_pool(etc: Path = Path("/etc"), proc: Path = Path("/proc/self")) -> IdPool:
    """Return this host's pool. Files that cannot be read count as empty."""
    return pool_of(
        _read(etc / "subuid"), _read(etc / "subgid"), _read(proc / "uid_map"),
        _read(proc / "gid_map"),
    )  # fmt: skip


def wanted_size(config: Mapping[str, str]) -> int:
    """Return how many ids an expanded config asks for."""
    size = config.get("security.idmap.size")
    if size:
        return int(size)
    return NESTING_SIZE if is_true(config.get("security.nesting")) else DEFAULT_SIZE


def held(config: Mapping[str, str]) -> tuple[int, int] | None:
    """Return (base, size) of the range that an instance's own config says it holds."""
    text = config.get("volatile.idmap.next") or config.get("volatile.idmap.current")
    base = config.get("volatile.idmap.base")
    if not text or not base:
        return None
    first = int(base)
    # Entries of raw.idmap lie elsewhere: they are not shifted by the base.
    ends = [
        entry.inside + entry.size
        for entry in from_json(text)
        if entry.outside - entry.inside == first
    ]
    return (first, max(ends)) if ends else None


def choose(
    expanded: Mapping[str, str],
    own: Mapping[str, str],
    taken: Iterable[tuple[int, int]],
    pool: IdPool,
) -> IdMap:
    """Return the ids of an instance's next start; the range it holds is kept where it fits.

    `taken` are the ranges of all other instances, starting ones included: the caller serialises
    choosing and recording. Raises Unavailable, InvalidConfig.
    """
    if is_true(expanded.get("security.privileged")):
        return IdMap()
    size = wanted_size(expanded)
    raw = expanded.get("raw.idmap", "")
    fixed = expanded.get("security.idmap.base")
    if pool.shared:
        return _shared(pool, size, fixed or raw)
    if fixed:
        return build(int(fixed), size, raw)
    others = [*taken, *((entry.outside, entry.size) for entry in parse_raw(raw))]
    holds = _held_base(own, size)
    if holds is not None and not _overlaps(holds, size, others):
        return build(holds, size, raw)
    return build(pool.allocate(others, size), size, raw)


def _shared(pool: IdPool, size: int, wishes: str) -> IdMap:
    if wishes:
        raise InvalidConfig(
            "security.idmap.base and raw.idmap cannot be had in a nested lxpyd, whose instances "
            "have its own ids: unset them"
        )
    first, end = pool.intervals[0]
    return build(first, min(size, end - first))


def _held_base(own: Mapping[str, str], size: int) -> int | None:
    """Return the base an instance has, when its map is as large as it should be."""
    text = own.get("volatile.idmap.next") or own.get("volatile.idmap.current")
    base = own.get("volatile.idmap.base")
    if not text or not base:
        return None
    inside = [entry.inside + entry.size for entry in from_json(text)]
    return int(base) if inside and max(inside) >= size else None


def build(base: int, size: int, raw: str = "") -> IdMap:
    """Return the map of `size` ids from `base`, with the lines of raw.idmap punched into it.

    Raises InvalidConfig when they contradict each other.
    """
    if base + size - 1 > _ID_MAX:
        raise InvalidConfig(
            f"Invalid idmap value specified: ids {base} to {base + size - 1} do not exist"
        )
    punched = parse_raw(raw)
    entries: list[IdMapEntry] = []
    for kind in ("u", "g"):
        own = sorted(
            (entry for entry in punched if entry.kind == kind), key=lambda entry: entry.inside
        )
        entries += _punch(kind, base, size, own)
    if len(entries) > 2 * _ENTRIES_MAX:
        raise InvalidConfig(f"Invalid raw.idmap: the kernel takes {_ENTRIES_MAX} lines at most")
    return IdMap(base, size, tuple(entries))


def _punch(
    kind: Literal["u", "g"], base: int, size: int, own: Sequence[IdMapEntry]
) -> list[IdMapEntry]:
    entries: list[IdMapEntry] = []
    inside = 0
    for entry in own:
        if entry.outside < base + size and base < entry.outside + entry.size:
            raise InvalidConfig(
                f"Host ID is in the range of subids: raw.idmap maps {entry.outside}, the instance "
                f"has {base} to {base + size - 1}; set security.idmap.base"
            )
        if entry.inside > inside:
            length = min(entry.inside, size) - inside
            if length > 0:
                entries.append(IdMapEntry(kind, inside, base + inside, length))
        entries.append(entry)
        inside = max(inside, entry.inside + entry.size)
    if inside < size:
        entries.append(IdMapEntry(kind, inside, base + inside, size - inside))
    return entries


def parse_raw(text: str) -> list[IdMapEntry]:
    """Return the entries of raw.idmap: lines "uid|gid|both HOST INSIDE", ids or ranges "A-B".

    Raises InvalidConfig.
    """
    entries: list[IdMapEntry] = []
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped:
            continue
        match = _RAW.fullmatch(stripped)
        if match is None:
            raise InvalidConfig(
                f'Invalid raw.idmap line "{stripped}": write "uid|gid|both HOST INSIDE", with '
                "ids or ranges of the same length (1000-1009)"
            )
        outside, outside_size = _span(stripped, match[2], match[3])
        inside, inside_size = _span(stripped, match[4], match[5])
        if outside_size != inside_size:
            raise InvalidConfig(f'Invalid raw.idmap line "{stripped}": the ranges differ in length')
        entries += [IdMapEntry(kind, inside, outside, inside_size) for kind in _KINDS[match[1]]]
    _check_disjoint(entries)
    return entries


def _span(line: str, first: str, last: str | None) -> tuple[int, int]:
    low, high = int(first), int(last or first)
    if high < low or high > _ID_MAX:
        raise InvalidConfig(f'Invalid raw.idmap line "{line}": {first}-{last} is no range of ids')
    return low, high - low + 1


def _check_disjoint(entries: Sequence[IdMapEntry]) -> None:
    for kind in ("u", "g"):
        same = [entry for entry in entries if entry.kind == kind]
        for what, spans in (
            ("inside", sorted((each.inside, each.size) for each in same)),
            ("host", sorted((each.outside, each.size) for each in same)),
        ):
            for (low, size), (following, _) in zip(spans, spans[1:], strict=False):
                if low + size > following:
                    raise InvalidConfig(
                        f"Invalid raw.idmap: the {what} id {following} is mapped twice"
                    )


def to_json(entries: Iterable[IdMapEntry]) -> str:
    """Return the text of `volatile.idmap.*`; "[]" when privileged."""
    items = [
        {
            "Isuid": entry.kind == "u",
            "Isgid": entry.kind == "g",
            "Hostid": entry.outside,
            "Nsid": entry.inside,
            "Maprange": entry.size,
        }
        for entry in entries
    ]
    return json.dumps(items, separators=(",", ":"))


def from_json(text: str) -> tuple[IdMapEntry, ...]:
    """Return the entries of a `volatile.idmap.*` value. Raises InvalidConfig."""
    try:
        items = json.loads(text) if text else []
        entries: list[IdMapEntry] = []
        for item in items or []:
            numbers = (item["Nsid"], item["Hostid"], item["Maprange"])
            if not all(type(each) is int and 0 <= each <= _ID_MAX for each in numbers):
                raise ValueError("an id is out of range")
            if item.get("Isuid"):
                entries.append(IdMapEntry("u", *numbers))
            if item.get("Isgid"):
                entries.append(IdMapEntry("g", *numbers))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidConfig(f"Invalid idmap value specified: {error}") from error
    return tuple(entries)


def volatile(idmap: IdMap) -> dict[str, str]:
    """Return the volatile keys of an instance that starts with `idmap`."""
    text = to_json(idmap.entries)
    return {
        "volatile.idmap.base": str(idmap.base),
        "volatile.idmap.current": text,
        "volatile.idmap.next": text,
        "volatile.last_state.idmap": "[]",
    }


def _overlaps(base: int, size: int, others: Sequence[tuple[int, int]]) -> bool:
    return any(base < first + length and first < base + size for first, length in others)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _subids(text: str, *, root: bool) -> list[Interval]:
    found: list[Interval] = []
    for line in text.splitlines():
        user, _, rest = line.strip().partition(":")
        first, _, count = rest.partition(":")
        if user.startswith("#") or not first.isdecimal() or not count.isdecimal():
            continue
        if (user in ("root", "0")) == root and int(count) > 0:
            found.append((int(first), min(int(first) + int(count), _ID_MAX + 1)))
    return _join(found)


def _mapped(text: str) -> list[Interval]:
    """Return the ids that exist in our own user namespace; [] when nothing limits them."""
    found: list[Interval] = []
    for line in text.splitlines():
        inside, _, size = (int(each) for each in line.split())
        found.append((inside, inside + size))
    return _join(found)


def _join(intervals: Iterable[Interval]) -> list[Interval]:
    joined: list[Interval] = []
    for first, end in sorted(intervals):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        elif first < end:
            joined.append((first, end))
    return joined


def _intersect(some: Sequence[Interval], others: Sequence[Interval]) -> list[Interval]:
    both = (
        (max(first, other_first), min(end, other_end))
        for first, end in some
        for other_first, other_end in others
    )
    return _join(each for each in both if each[0] < each[1])


def _subtract(some: Sequence[Interval], others: Iterable[Interval]) -> list[Interval]:
    left = list(some)
    for low, high in others:
        left = [
            part
            for first, end in left
            for part in ((first, min(end, low)), (max(first, high), end))
            if part[0] < part[1]
        ]
    return _join(left)
