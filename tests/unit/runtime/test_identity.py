"""Ids inside and outside."""

from __future__ import annotations

import pytest

from lxpy.runtime.plain import IdMapEntry
from lxpy.runtime.steps import devices, identity

MAP: list[IdMapEntry] = [
    {"kind": "u", "inside": 0, "outside": 1000000, "size": 1000},
    {"kind": "u", "inside": 1000, "outside": 1000, "size": 1},
    {"kind": "g", "inside": 0, "outside": 2000000, "size": 65536},
]


def test_ids_outside() -> None:
    assert identity.outside(MAP, "u", 0) == 1000000
    assert identity.outside(MAP, "u", 1000) == 1000
    assert identity.outside(MAP, "g", 1000) == 2001000
    assert identity.outside([], "u", 7) == 7


@pytest.mark.parametrize(("kind", "inside"), [("u", 1001), ("g", 65536)])
def test_ids_that_are_not_mapped(kind: str, inside: int) -> None:
    with pytest.raises(ValueError, match="not mapped"):
        identity.outside(MAP, kind, inside)


def test_lines_of_a_map() -> None:
    assert identity.lines(MAP, "u") == [(0, 1000000, 1000), (1000, 1000, 1)]
    assert identity.lines(MAP, "g") == [(0, 2000000, 65536)]


@pytest.mark.parametrize("path", ["/dev", "/etc/x", "/dev/../etc/x", "dev/", ""])
def test_device_paths_are_below_dev(path: str) -> None:
    with pytest.raises(ValueError, match="not below /dev"):
        devices.remove_node(-1, path)
