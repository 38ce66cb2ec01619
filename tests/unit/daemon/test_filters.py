"""The `filter` parameter: LXD's grammar, from left to right."""

from __future__ import annotations

from typing import Any

import pytest

from lxpy.daemon.filters import Filter
from lxpy.errors import Failed

GIVEN: dict[str, Any] = {
    "name": "web-1",
    "status": "Running",
    "ephemeral": False,
    "status_code": 103,
    "description": "",
    "config": {"user.role": "front end", "limits.cpu": "2"},
    "devices": {"root": {"pool": "default"}},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name eq web-1", True),
        ("name eq WEB-1", True),
        ("name eq web", False),
        ("name eq web.*", True),
        ("name eq ^web", True),
        ("name ne web-2", True),
        ("not name eq web-1", False),
        ("status eq running and ephemeral eq false", True),
        ("status eq stopped or name eq web-1", True),
        ("name eq web-1 or status eq stopped and status eq frozen", False),
        ('config.user.role eq "front end"', True),
        ("config.limits.cpu eq 2", True),
        ("config.limits.memory eq 1GiB", False),
        ('config.limits.memory eq ""', True),
        ("devices.root.pool eq default", True),
        ("status_code eq 103", True),
        ("name eq (", False),
    ],
)
def test_matches(text: str, expected: bool) -> None:
    assert Filter.parse(text)(GIVEN) is expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name", "no operator"),
        ("name eq", "no value"),
        ("name is x", "unknown operator"),
        ("name eq x xor name eq y", "joined by"),
        ("name eq x and", "no operator"),
        ('name eq "x', "Invalid filter"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(Failed, match=said):
        Filter.parse(text)
