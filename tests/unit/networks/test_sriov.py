"""Virtual functions: which is free, by what sysfs shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxpy.errors import Failed, NotSupported
from lxpy.networks.sriov import Function, free_function


def card(net: Path, functions: dict[int, tuple[str, int] | None]) -> None:
    """Make a card `eno1`: functions by number, with the interface each has here and its flags."""
    device = net / "eno1/device"
    device.mkdir(parents=True)
    (device / "sriov_totalvfs").write_text("8\n")
    for number, interface in functions.items():
        entry = device / f"virtfn{number}"
        entry.mkdir()
        if interface is not None:
            name, flags = interface
            (entry / "net" / name).mkdir(parents=True)
            (net / name).mkdir()
            (net / name / "flags").write_text(f"{flags:#x}\n")


def test_the_first_that_is_off_and_here(tmp_path: Path) -> None:
    card(tmp_path, {0: ("enp1v0", 0x1003), 1: None, 10: ("enp1v10", 0x1002), 2: ("enp1v2", 0x1002)})
    assert free_function("eno1", tmp_path) == Function(2, "enp1v2")


def test_none(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match="doesn't support SR-IOV"):
        free_function("eno1", tmp_path)
    card(tmp_path, {})
    with pytest.raises(Failed, match="SR-IOV disabled: write a number, 8 at most"):
        free_function("eno1", tmp_path)


def test_all_in_use(tmp_path: Path) -> None:
    card(tmp_path, {0: ("enp1v0", 0x1003), 1: None})
    with pytest.raises(Failed, match="All virtual functions"):
        free_function("eno1", tmp_path)
