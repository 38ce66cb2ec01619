"""Which container a process is in."""

from __future__ import annotations

import os

import pytest

from lxpy.runtime import callers


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/lxpy/c1/p", "c1"),
        ("/lxpy/c1/p/.lxc", "c1"),
        ("/lxpy/p_c1/p/system.slice/x.service", "p_c1"),
        ("/lxpy/c1/p/lxpy/inner/p", "c1"),
        ("/lxpy/c1/.restore", ""),
        ("/lxpy/c1", ""),
        ("/lxpy", ""),
        ("/", ""),
        ("/lxpy-other/c1/p", ""),
        ("/user.slice/lxpy/c1/p", ""),
    ],
)
def test_the_group_tells(path: str, name: str) -> None:
    assert callers._below(path, "lxpy") == name


def test_we_are_in_none() -> None:
    assert callers.container_of(os.getpid(), "lxpy-nothing") == ""
    with pytest.raises(FileNotFoundError):
        callers.container_of(1 << 30, "lxpy")
