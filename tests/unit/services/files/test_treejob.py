"""Capabilities of files, as a guest has them and as they are set for it."""

from __future__ import annotations

import struct

import pytest

from lxpy.runtime.owners import Owners
from lxpy.services.files.treejob import Job, inside, is_wanted, outside

NAME = "security.capability"
OURS = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
SPANS = ((0, 1_000_000, 65536),)
GUEST = Owners(SPANS, SPANS)


def test_there_and_back() -> None:
    stored = outside(NAME, OURS, GUEST)
    assert len(stored) == 24 and struct.unpack_from("<I", stored, 20) == (1_000_000,)
    assert inside(NAME, stored, GUEST) == OURS
    assert outside(NAME, OURS, Owners()) == inside(NAME, OURS, Owners()) == OURS
    assert outside("user.x", b"any", GUEST) == inside("user.x", b"any", GUEST) == b"any"


def test_what_belongs_to_another_root() -> None:
    assert inside(NAME, outside(NAME, OURS, GUEST), Owners(((0, 5, 1),), ((0, 5, 1),))) == b""


@pytest.mark.parametrize("value", [b"", b"x", OURS[:-1], b"\1" + OURS[1:3] + b"\1" + OURS[4:]])
def test_broken_ones(value: bytes) -> None:
    with pytest.raises(ValueError, match="not of revision 2"):
        outside(NAME, value, GUEST)


def test_which_attributes_go_with_a_file() -> None:
    wanted = [each for each in (NAME, "user.a", "trusted.overlay.opaque", "security.selinux")
              if is_wanted(each)]  # fmt: skip
    assert wanted == [NAME, "user.a"]


def test_a_job_is_what_json_carries() -> None:
    files = Job(7, "/etc", [list(SPANS[0])], [list(SPANS[0])]).files()  # type: ignore[list-item]
    assert files.root == 7 and files.owners == GUEST
