"""What is written for limits of disks and huge pages, on files that look like control groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lxpy.runtime import blockio
from lxpy.runtime.spec import IoLimit, Limits, encode


def _limits(**fields: Any) -> Any:
    return encode(Limits(**fields))


def _devices(*limits: IoLimit) -> Any:
    return [encode(each) for each in limits]


def test_version_1(tmp_path: Path) -> None:
    files = {name: tmp_path / f"blkio.throttle.{name}_device"
             for name in ("read_bps", "write_bps", "read_iops", "write_iops")}  # fmt: skip
    for file in files.values():
        file.write_text("")
    blockio.limit_devices(str(tmp_path), _devices(IoLimit(8, 0, read_bytes=5)), v1=True)
    assert files["read_bps"].read_text() == "8:0 5"
    assert files["write_iops"].read_text() == "8:0 0"
    blockio.limit_devices(str(tmp_path), [], v1=True)
    assert files["read_bps"].read_text().startswith("8:0 0")


def test_version_2(tmp_path: Path) -> None:
    file = tmp_path / "io.max"
    file.write_text("")
    limit = IoLimit(8, 0, read_bytes=5, write_ops=7)
    blockio.limit_devices(str(tmp_path), _devices(limit), v1=False)
    assert file.read_text() == "8:0 rbps=5 wbps=max riops=max wiops=7"


def test_what_a_host_lacks_is_told() -> None:
    blockio.limit_devices("", [], v1=False)
    with pytest.raises(OSError, match="no io controller"):
        blockio.limit_devices("", _devices(IoLimit(8, 0, read_bytes=5)), v1=False)
    with pytest.raises(OSError, match=r"limits\.disk\.priority"):
        blockio.set_weight("", 100)
    with pytest.raises(OSError, match="no huge pages of 2MB"):
        blockio.limit_huge_pages("", _limits(hugepages={"2MB": 1}), v1=False)
    with pytest.raises(OSError, match=r"limits\.memory\.swap\.priority"):
        blockio.set_swappiness("", 60, v1=False)


@pytest.mark.parametrize(
    ("v1", "file", "none"), [(True, "limit_in_bytes", "-1"), (False, "max", "max")]
)
def test_huge_pages(tmp_path: Path, v1: bool, file: str, none: str) -> None:
    path = tmp_path / f"hugetlb.2MB.{file}"
    path.write_text("")
    blockio.limit_huge_pages(str(tmp_path), _limits(hugepages={"2MB": 4096}), v1=v1)
    assert path.read_text() == "4096"
    path.write_text("")
    blockio.limit_huge_pages(str(tmp_path), _limits(), v1=v1)
    assert path.read_text() == none
