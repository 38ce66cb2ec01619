"""Snapshots as rows of a table."""

from __future__ import annotations

from lxpy.cli import texts
from lxpy.units import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.client.client import Json

HEADER = (
    *("NAME", "TAKEN AT", "EXPIRES AT", "SIZE", "STATEFUL", "SCHEDULED"),
    *("FROZEN FOR", "MEMORY"),
)


def row(each: Json) -> list[str]:
    """Return the cells of one, as `HEADER` has them; MEMORY is what it takes on disk."""
    making, memory = each.get("lxpy") or {}, each.get("lxpy_stateful") or {}
    frozen = making.get("frozen_ms")
    return [
        str(each["name"]).rpartition("/")[2],
        texts.date(each["created_at"]),
        texts.date(each.get("expires_at") or ""),
        _size(each.get("size")),
        texts.yes(each["stateful"]),
        texts.yes(bool(making.get("scheduled"))),
        "" if frozen is None else f"{frozen:g} ms",
        _size(memory.get("size")),
    ]


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None or size_bytes < 0 else format_size(size_bytes)
