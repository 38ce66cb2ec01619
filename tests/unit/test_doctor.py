"""lxpy doctor: findings on made-up hosts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lxpy.cli.doctor import doctor
from lxpy.doctor import (
    Finding,
    Host,
    Verdict,
    cgroup_layout,
    check_cgroups,
    check_ids,
    check_kernel,
    check_settings,
    check_storage,
    check_tools,
    controllers,
    examine,
    filesystem_of,
)

HYBRID = """\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
"""
PURE = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n"


def host(root: Path, **files: str) -> Host:
    """A host with these files; `__` in a name is a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Host(root, path=str(root / "bin"))


def verdicts(findings: object) -> dict[str, Verdict]:
    return {finding.subject: finding.verdict for finding in findings}  # type: ignore[attr-defined]


def test_layouts(tmp_path: Path) -> None:
    assert cgroup_layout(host(tmp_path / "a", proc__self__mounts=HYBRID)) == "hybrid"
    assert cgroup_layout(host(tmp_path / "b", proc__self__mounts=PURE)) == "pure cgroup2"
    old = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
    assert cgroup_layout(host(tmp_path / "c", proc__self__mounts=old)) == "v1"
    assert cgroup_layout(host(tmp_path / "d")) == "none"


def test_controllers_of_both_versions(tmp_path: Path) -> None:
    one = host(tmp_path / "a", proc__self__mounts=HYBRID)
    assert controllers(one) == {"cpu": "version 1", "memory": "version 1"}
    two = host(tmp_path / "b", proc__self__mounts=PURE)
    group = tmp_path / "b/sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert set(controllers(two)) == {"cpuset", "cpu", "memory", "pids"}
    assert all(f.verdict is Verdict.OK for f in check_cgroups(two))


def test_missing_controller_is_a_warning_with_its_remedy(tmp_path: Path) -> None:
    found = {f.subject: f for f in check_cgroups(host(tmp_path, proc__self__mounts=HYBRID))}
    assert found["pids"].verdict is Verdict.WARNING
    assert "limits.processes" in found["pids"].remedy


def test_version_1_alone_is_a_failure(tmp_path: Path) -> None:
    only = host(tmp_path, proc__self__mounts="cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n")
    assert verdicts(check_cgroups(only))["layout"] is Verdict.FAILURE


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("6.12.1", Verdict.OK), ("5.19.0-x", Verdict.WARNING), ("4.19.0", Verdict.FAILURE)],
)
def test_kernel_version(tmp_path: Path, text: str, verdict: Verdict) -> None:
    found = verdicts(check_kernel(host(tmp_path, proc__sys__kernel__osrelease=text)))
    assert found["version"] is verdict
    assert found["namespaces"] is Verdict.FAILURE


def test_tools(tmp_path: Path) -> None:
    class Bare(Host):
        def tool(self, name: str) -> str | None:
            return "/bin/tar" if name == "tar" else None

    found = verdicts(check_tools(Bare(tmp_path)))
    assert found["tar"] is Verdict.OK
    assert found["dnsmasq"] is Verdict.FAILURE
    assert found["lxcfs"] is Verdict.WARNING


def test_settings(tmp_path: Path) -> None:
    here = host(
        tmp_path,
        proc__sys__fs__inotify__max_user_instances="128",
        proc__sys__user__max_user_namespaces="0",
        proc__sys__kernel__pid_max="4194304",
    )
    found = verdicts(check_settings(here))
    assert found["fs.inotify.max_user_instances"] is Verdict.WARNING
    assert found["user.max_user_namespaces"] is Verdict.FAILURE
    assert found["kernel.pid_max"] is Verdict.OK
    assert "kernel.keys.maxkeys" not in found


MOUNTS = """\
1 0 8:1 / / rw - ext4 /dev/a rw
2 1 8:2 / /var rw shared:1 - nfs server rw
3 1 8:3 / /var/lib/lxpy rw - xfs /dev/b rw
"""


def test_file_system_of_a_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    here = host(tmp_path, proc__self__mountinfo=MOUNTS)
    assert filesystem_of(here, "/var/lib/lxpy/images") == ("xfs", "/var/lib/lxpy")
    assert filesystem_of(here, "/var/lib/lxpy2") == ("nfs", "/var")
    assert filesystem_of(here, "/srv") == ("ext4", "/")


def test_storage_without_idmapped_mounts(tmp_path: Path) -> None:
    host(tmp_path, proc__self__mountinfo=MOUNTS, proc__sys__kernel__osrelease="6.12")
    bad = Host(tmp_path, state_dir="/var/lib/other")
    assert verdicts(check_storage(bad))["file system"] is Verdict.FAILURE


@pytest.mark.parametrize(
    ("text", "verdict", "words"),
    [
        ("", Verdict.OK, "1000000"),
        ("user:100000:65536\n", Verdict.OK, "1000000"),
        ("root:100000:65535\n", Verdict.OK, "1000000"),
        ("root:100000:131072\n", Verdict.WARNING, "2 instances"),
        ("root:1000000:1000000000\nbroken\n", Verdict.OK, "1000000000 from"),
        ("_lxd:100000:10000001\nroot:100000:10000001\n", Verdict.OK, "1000000 on"),
    ],
)
def test_ids(tmp_path: Path, text: str, verdict: Verdict, words: str) -> None:
    (found,) = [
        each for each in check_ids(host(tmp_path, etc__subuid=text)) if "ids" in each.subject
    ]
    assert found.verdict is verdict and words in found.text


def test_a_host_that_is_an_instance(tmp_path: Path) -> None:
    mounts = "1 0 0:1 / / rw - overlay none rw\n"
    here = host(tmp_path, proc__self__uid_map="0 100000 65536\n", proc__self__mountinfo=mounts)
    found = {each.subject: each for each in (*check_ids(here), *check_storage(here))}
    assert found["ids for instances"].verdict is Verdict.WARNING
    assert "nested" in found["ids for instances"].text
    assert found["file system"].verdict is Verdict.FAILURE
    assert "custom volume" in found["file system"].remedy


def test_every_problem_has_a_remedy(tmp_path: Path) -> None:
    findings = examine(Host(tmp_path, path=str(tmp_path)))
    problems = [finding for finding in findings if finding.verdict is not Verdict.OK]
    assert problems and all(isinstance(p, Finding) and p.remedy and p.text for p in problems)


def test_command_as_json() -> None:
    done = CliRunner().invoke(doctor, ["--format", "json"], standalone_mode=False)
    report = json.loads(done.stdout)
    assert {"area", "subject", "verdict", "text", "remedy"} == set(report[0])
    failed = any(finding["verdict"] == "failure" for finding in report)
    assert done.return_value == int(failed)


def test_command_as_table() -> None:
    done = CliRunner().invoke(doctor, [])
    assert "Kernel\n" in done.stdout and "version" in done.stdout
