"""Pools on the command line of `lxpy recover`."""

from __future__ import annotations

import pytest

from lxpy.cli.recover import _pool
from lxpy.errors import BadRequest


@pytest.mark.parametrize(
    ("text", "driver", "config"),
    [
        ("p:dir:/srv/pool", "dir", {"source": "/srv/pool"}),
        ("p:btrfs:/dev/sdb:volume.size=10GiB:user.a=b=c", "btrfs",
         {"source": "/dev/sdb", "volume.size": "10GiB", "user.a": "b=c"}),
        ("p:lvm:", "lvm", {}),
    ],
)  # fmt: skip
def test_pool(text: str, driver: str, config: dict[str, str]) -> None:
    assert _pool(text) == {"name": "p", "driver": driver, "config": config}


@pytest.mark.parametrize("text", ["", "p", ":dir:/x", "p::/x", "p:dir:/x:word"])
def test_no_pool(text: str) -> None:
    with pytest.raises(BadRequest, match="NAME:DRIVER:SOURCE|key=value"):
        _pool(text)
