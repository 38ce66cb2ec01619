"""What is read of an instance, with both kinds of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lxpy.runtime.cgroups import Group, Layout
from lxpy.runtime.metering import BlockDevice, Cpu, file_system, measure

V1 = {
    "cpuacct/i/cpuacct.usage_all": "cpu user system\n0 5 7\n9999 0 0\n",
    "memory/i/memory.limit_in_bytes": "1048576\n",
    "memory/i/memory.usage_in_bytes": "4096\n",
    "memory/i/memory.stat": "cache 1\ntotal_cache 2\ntotal_rss 3\ntotal_swap 4\n",
    "pids/i/pids.current": "6\n",
    "blkio/i/blkio.throttle.io_service_bytes": "1:0 Read 10\n1:0 Write 11\nTotal 21\n",
    "blkio/i/blkio.throttle.io_serviced": "1:0 Read 1\n1:0 Write 2\nTotal 3\n",
}
V2 = {
    "v2/i/cpu.stat": "usage_usec 12\nuser_usec 5\nsystem_usec 7\n",
    "v2/i/memory.max": "max\n",
    "v2/i/memory.current": "4096\n",
    "v2/i/memory.swap.current": "4\n",
    "v2/i/memory.stat": "anon 3\nfile 2\n",
    "v2/i/pids.current": "6\n",
    "v2/i/io.stat": "1:0 rbytes=10 wbytes=11 rios=1 wios=2 dbytes=0 dios=0\n2:0 \n",
}


def made(root: Path, files: dict[str, str], v1: tuple[str, ...]) -> Group:
    for name, text in {"v2/cgroup.controllers": "cpu io memory pids\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Group(Layout(str(root / "v2"), {each: str(root / each) for each in v1}, {}), "i")


def test_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "readlink", lambda path: f"../../block/{path.rpartition('/')[2]}")
    found = measure(made(tmp_path, V1, ("cpuacct", "memory", "pids", "blkio")), os.getpid())
    assert found.cpus == (Cpu(0, 5, 7),)
    assert found.devices == (BlockDevice("1:0", 10, 1, 11, 2),)
    assert found.processes == 6 and found.memory is not None
    assert (found.memory.limit, found.memory.usage, found.memory.swap) == (1 << 20, 4096, 4)
    assert (found.memory.parts["cached"], found.memory.parts["rss"]) == (2, 3)
    assert "lo" in {each.name for each in found.interfaces}


def test_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "readlink", lambda path: f"../../block/{path.rpartition('/')[2]}")
    found = measure(made(tmp_path, V2, ()), os.getpid())
    assert found.cpus == (Cpu(0, 5000, 7000),)
    assert found.devices == (BlockDevice("1:0", 10, 1, 11, 2),)
    assert found.processes == 6 and found.memory is not None
    assert (found.memory.limit, found.memory.usage, found.memory.swap) == (0, 4096, 4)
    assert (found.memory.parts["cached"], found.memory.parts["rss"]) == (2, 3)


def test_one_that_has_ended(tmp_path: Path) -> None:
    """Nothing raises, and nothing is made up."""
    for v1 in ((), ("cpuacct", "memory", "pids", "blkio")):
        found = measure(made(tmp_path, {}, v1), 1 << 30)
        assert (found.cpus, found.memory, found.devices) == ((), None, ())
        assert (found.interfaces, found.processes) == ((), None)


def test_file_systems(tmp_path: Path) -> None:
    found, said = file_system(str(tmp_path)), os.statvfs(tmp_path)
    assert found.size == said.f_blocks * said.f_frsize and found.available <= found.free
    assert found.type and file_system("/proc").type == "0x9fa0"
    with pytest.raises(FileNotFoundError):
        file_system(str(tmp_path / "none"))
