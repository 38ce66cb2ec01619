"""Finding hierarchies, and what is written where; on directories that look like cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxpy.runtime.cgroups import Group, Layout, Root
from lxpy.runtime.spec import Limits, encode

V1 = ("cpu", "cpuset", "memory", "pids", "freezer")


def mountinfo(tmp_path: Path, *mounts: tuple[str, str, str]) -> str:
    """Write a mountinfo of (directory, type, super options) below tmp_path."""
    lines = ["23 1 254:0 / / rw - ext4 /dev/vda rw"]
    for directory, kind, options in mounts:
        (tmp_path / directory).mkdir(parents=True, exist_ok=True)
        point = str(tmp_path / directory).replace(" ", "\\040")
        lines.append(f"31 23 0:28 / {point} rw,relatime shared:9 - {kind} {kind} rw,{options}")
    path = tmp_path / "mountinfo"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def pure(tmp_path: Path, controllers: str = "cpuset cpu io memory pids") -> Layout:
    info = mountinfo(tmp_path, ("cg", "cgroup2", "nsdelegate"))
    (tmp_path / "cg/cgroup.controllers").write_text(controllers)
    return Layout.detect(info)


def hybrid(tmp_path: Path) -> Layout:
    info = mountinfo(
        tmp_path,
        ("cg/cpu,cpuacct", "cgroup", "cpu,cpuacct"),
        *((f"cg/{name}", "cgroup", name) for name in V1 if name != "cpu"),
        ("cg/systemd", "cgroup", "xattr,name=systemd"),
        ("cg/unified", "cgroup2", "nsdelegate"),
        ("elsewhere", "cgroup2", ""),
    )
    (tmp_path / "cg/unified/cgroup.controllers").write_text("hugetlb")
    return Layout.detect(info)


def test_a_pure_host(tmp_path: Path) -> None:
    layout = pure(tmp_path)
    assert layout.v2 == f"{tmp_path}/cg"
    assert layout.mounts_v1() == []
    assert layout.v2_controllers == {"cpuset", "cpu", "io", "memory", "pids"}


def test_a_hybrid_host(tmp_path: Path) -> None:
    layout = hybrid(tmp_path)
    assert layout.v2 == f"{tmp_path}/cg/unified"
    assert layout.v1["cpu"] == layout.v1["cpuacct"] == f"{tmp_path}/cg/cpu,cpuacct"
    assert layout.named == {"systemd": f"{tmp_path}/cg/systemd"}
    assert len(layout.mounts_v1()) == len(set(layout.mounts_v1())) == 6


def test_a_host_with_version_1_alone(tmp_path: Path) -> None:
    info = mountinfo(tmp_path, ("cg/memory", "cgroup", "memory"))
    with pytest.raises(FileNotFoundError, match="mount it"):
        Layout.detect(info)


def test_spaces_in_mount_points(tmp_path: Path) -> None:
    info = mountinfo(tmp_path, ("a b", "cgroup2", ""))
    (tmp_path / "a b/cgroup.controllers").write_text("")
    assert Layout.detect(info).v2 == f"{tmp_path}/a b"


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="invalid name"):
        Root(pure(tmp_path), "lxpy").group(name)


def group_on(layout: Layout, *files: str) -> Group:
    """A group whose control files exist: the kernel makes them on a real one."""
    for directory in [layout.v2, *layout.mounts_v1()]:
        (Path(directory) / "lxpy/c1").mkdir(parents=True)
    for file in files:
        Path(file).write_text("")
    return Root(layout, "lxpy").group("c1")


def test_limits_of_version_2(tmp_path: Path) -> None:
    base = tmp_path / "cg/lxpy/c1"
    names = ("memory.max", "memory.high", "memory.swap.max", "cpu.max", "cpu.weight",
             "cpuset.cpus", "pids.max")  # fmt: skip
    layout = pure(tmp_path)
    group = group_on(layout)
    for name in names:
        (base / name).write_text("")
    group.limit(encode(Limits(memory_bytes=1 << 20, swap=False, cpus="1", cpu_quota_us=20000,
                              cpu_weight=50, pids=10)))  # fmt: skip
    read = {name: (base / name).read_text() for name in names}
    assert read == {
        "memory.max": "1048576",
        "memory.high": "max",
        "memory.swap.max": "0",
        "cpu.max": "20000 100000",
        "cpu.weight": "50",
        "cpuset.cpus": "1",
        "pids.max": "10",
    }
    for name in names:
        (base / name).write_text("")
    (base / "cpuset.cpus").write_text("1\n")
    (base.parent / "cpuset.cpus.effective").write_text("0-3\n")
    group.limit(encode(Limits()))
    assert (base / "cpuset.cpus").read_text() == "0-3"  # cannot be emptied while it is in use
    assert (base / "memory.max").read_text() == "max"
    assert (base / "cpu.max").read_text() == "max 100000"
    assert (base / "pids.max").read_text() == "max"


def test_limits_of_version_1(tmp_path: Path) -> None:
    layout = hybrid(tmp_path)
    group = group_on(layout)
    files = {
        "memory/lxpy/c1/memory.limit_in_bytes": "1048576",
        "memory/lxpy/c1/memory.soft_limit_in_bytes": "524288",
        "cpu,cpuacct/lxpy/c1/cpu.cfs_quota_us": "20000",
        "cpu,cpuacct/lxpy/c1/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/lxpy/c1/cpu.shares": "512",
        "cpuset/lxpy/c1/cpuset.cpus": "1",
        "pids/lxpy/c1/pids.max": "10",
    }
    for name in files:
        (tmp_path / "cg" / name).write_text("")
    group.limit(encode(Limits(memory_bytes=1 << 20, memory_soft_bytes=1 << 19, cpus="1",
                              cpu_quota_us=20000, cpu_weight=50, pids=10)))  # fmt: skip
    # Files take what is written from their start on: the last write's text is what counts here.
    for name, text in files.items():
        assert (tmp_path / "cg" / name).read_text().startswith(text), name


def test_a_limit_without_its_controller_is_refused(tmp_path: Path) -> None:
    group = group_on(pure(tmp_path, controllers="cpu"))
    with pytest.raises(OSError, match="no memory controller"):
        group._limit_memory(encode(Limits(memory_bytes=1 << 20)))
    with pytest.raises(OSError, match="no pids controller"):
        group._set("pids", "pids.max", "10", required=True)


def test_groups_below_are_removed_too(tmp_path: Path) -> None:
    layout = hybrid(tmp_path)
    group = group_on(layout)
    (Path(group.v2) / "p/a/b").mkdir(parents=True)
    assert group.remove()
    assert not Path(group.v2).exists()
    assert group.remove()  # nothing is there any more


def test_instances_by_their_groups(tmp_path: Path) -> None:
    layout = pure(tmp_path)
    group_on(layout)
    (tmp_path / "cg/lxpy/.supervisor").mkdir()
    (tmp_path / "cg/lxpy/cgroup.procs").write_text("")
    assert Root(layout, "lxpy").names() == ["c1"]


def test_hierarchies_of_other_installations_are_theirs(tmp_path: Path) -> None:
    info = mountinfo(
        tmp_path,
        ("cg", "cgroup2", ""),
        ("a/run/systemd-cgroup", "cgroup", "name=systemd"),
    )
    (tmp_path / "cg/cgroup.controllers").write_text("")
    assert Layout.detect(info).named == {}
    own = Layout.detect(info, run_dir=f"{tmp_path}/a/run")
    assert own.named == {"systemd": f"{tmp_path}/a/run/systemd-cgroup"}
