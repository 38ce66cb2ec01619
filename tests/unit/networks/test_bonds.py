"""Bonds as sysfs shows them."""

from __future__ import annotations

from pathlib import Path

from lxpy.networks.bonds import Bond, read


def test_bond(tmp_path: Path) -> None:
    assert read("bond0", tmp_path) == Bond("", "", 0, 0, 0, "", [])
    place = tmp_path / "bond0/bonding"
    place.mkdir(parents=True)
    for key, text in (
        ("mode", "802.3ad 4"), ("xmit_hash_policy", "layer2 0"), ("updelay", "200"),
        ("downdelay", "0"), ("miimon", "100"), ("mii_status", "up"), ("slaves", "eno2 eno1"),
    ):  # fmt: skip
        (place / key).write_text(f"{text}\n")
    assert read("bond0", tmp_path) == Bond("802.3ad", "layer2", 200, 0, 100, "up", ["eno1", "eno2"])
