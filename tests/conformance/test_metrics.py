"""Metrics, held line by line against those of a real LXD."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.conformance.conftest import Lxc, Lxd

#: what differs from host to host, and from instance to instance
_VALUE = re.compile(r"\} \S+$")


def shape(lxc: Lxc, name: str) -> list[str]:
    """The lines of the metrics of one instance, without the values."""
    end = time.monotonic() + 20  # both keep what they have measured for 8 s
    while f'name="{name}"' not in (text := lxc("query", "--raw", "/1.0/metrics")):
        assert time.monotonic() < end, text
        time.sleep(0.3)
    assert text.endswith("# EOF\n")
    found = []
    for line in text.splitlines():
        if line.startswith("#") or f'name="{name}"' in line:
            line = re.sub(r'fstype="\w+"', "", line)
            found.append(_VALUE.sub("}", line))
    return found


@pytest.fixture
def theirs(lxd: Lxd, busybox_image: object) -> Iterator[str]:
    lxd("image", "import", str(busybox_image), "--alias", "measured")
    lxd("launch", "measured", "measured")
    yield "measured"
    lxd("delete", "--force", "measured")
    lxd("image", "delete", "measured")


def test_the_same_lines(lxc: Lxc, lxd: Lxd, image: str, theirs: str) -> None:
    lxc("launch", image, theirs, "-p", "default")
    try:
        for each in (lxc, lxd):
            each("config", "device", "add", theirs, "shown", "disk", "source=/usr", "path=/mnt")
            each("exec", theirs, "--", "sha256sum", "/bin/busybox", "/mnt/bin/env")
        ours, others = shape(lxc, theirs), shape(lxd, theirs)
    finally:
        lxc.run("delete", "--force", theirs)
    # Nics are in the default profile of ours only; a disk counts once it was read from.
    ours, others = ([line for line in lines if 'device="eth0"' not in line
                     and "lxd_disk_" not in line] for lines in (ours, others))  # fmt: skip
    assert sorted(ours) == sorted(others)
    assert [line for line in ours if "#" in line] == [line for line in others if "#" in line]
