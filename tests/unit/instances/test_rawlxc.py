"""raw.lxc: lines that are honoured, and those that are refused."""

from __future__ import annotations

import pytest

from lxpy.errors import InvalidConfig
from lxpy.instances import lxcconf, rawlxc
from lxpy.kernel import caps
from lxpy.runtime.spec import Directory, Disk, IdMapEntry, Node, Overlay, Spec


def test_lines_are_read() -> None:
    found = rawlxc.parse(
        """
        # a comment
        lxc.environment = A=b=c
        lxc.sysctl.net.ipv4.ip_forward=1
        lxc.prlimit.nofile = 10:20
        lxc.prlimit.core = unlimited
        lxc.mount.entry = /mnt/a\\040b srv/x none rbind,ro,optional,create=dir 0 0
        lxc.cgroup2.memory.high = 1G
        lxc.cgroup.pids.max = 7
        lxc.cap.drop = sys_admin CAP_NET_RAW
        lxc.init.cmd = /bin/sh -c "a b"
        lxc.apparmor.profile = unconfined
        lxc.mount.auto = proc sys:mixed
        lxc.autodev = 1
        """
    )
    assert found.environment == {"A": "b=c"}
    assert found.sysctls == {"net.ipv4.ip_forward": "1"}
    assert found.rlimits == {"nofile": (10, 20), "core": (-1, -1)}
    assert found.disks == [
        Disk("/mnt/a b", "/srv/x", readonly=True, recursive=True, shift=False, required=False,
             raw_options="ro"),
    ]  # fmt: skip
    assert found.control_files == [("cgroup2/memory.high", "1G"), ("cgroup/pids.max", "7")]
    assert found.dropped == {21, 13}
    assert found.init == ("/bin/sh", "-c", "a b")
    assert not found.unprivileged and not found.no_seccomp


def test_capabilities_to_keep_are_those_not_dropped() -> None:
    kept = rawlxc.parse("lxc.cap.keep = chown kill").dropped
    assert kept == set(range(len(caps.NAMES))) - {0, 5}
    assert len(rawlxc.parse("lxc.cap.keep = none").dropped) == len(caps.NAMES) == 41
    assert rawlxc.parse("lxc.cap.drop = kill\nlxc.cap.drop =").dropped == set()


def test_what_needs_a_user_namespace() -> None:
    text = "lxc.cgroup.devices.allow = a\nlxc.mount.auto = proc:rw sys:rw\nlxc.cap.drop ="
    assert len(rawlxc.parse(text).unprivileged) == 3
    assert rawlxc.parse("lxc.seccomp.profile =").no_seccomp


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("lxc.hook.pre-start = /bin/true", "hooks are programs"),
        ("lxc.include = /etc/x", "files of the host"),
        ("lxc.net.0.type = veth", "devices of type nic"),
        ("lxc.log.file = /x", "the log is"),
        ("lxc.rootfs.path = /", "volume"),
        ("lxc.idmap = u 0 0 1", "raw.idmap"),
        ("lxc.apparmor.profile = mine", "no AppArmor profiles"),
        ("lxc.seccomp.profile = /x", "raw.seccomp"),
        ("lxc.autodev = 0", "no such setting"),
        ("lxc.foo = bar", "no such setting"),
        ("nothing", "write it as"),
        ("foo = bar", "write it as"),
        ("lxc.environment = HOME", "NAME=VALUE"),
        ("lxc.sysctl.kernel = 1", "no kernel setting"),
        ("lxc.prlimit.foo = 1", "no resource limit"),
        ("lxc.prlimit.core = x", "Invalid value"),
        ("lxc.cgroup2.cgroup.procs = 1", "only limits"),
        ("lxc.cgroup2.memory/../x = 1", "only limits"),
        ("lxc.cgroup.devices.deny = a", "only limits"),
        ("lxc.cap.drop = fly", "no capability"),
        ("lxc.mount.entry = tmpfs tmp tmpfs defaults 0 0", "only bind mounts"),
        ("lxc.mount.entry = /mnt mnt none bind,dev 0 0", 'option "dev"'),
        ("lxc.mount.entry = mnt mnt none bind 0 0", "absolute"),
        ("lxc.mount.entry = /mnt ../mnt none bind 0 0", "absolute"),
        ("lxc.mount.entry = /mnt", "write it as"),
        ("lxc.mount.auto = proc:ro", "none of proc"),
        ("lxc.init.cmd = sbin/init", "absolute"),
        ("lxc.init.cmd = '", "No closing"),
    ],
)
def test_the_rest_is_refused_with_a_reason(line: str, reason: str) -> None:
    with pytest.raises(InvalidConfig, match=r"^raw\.lxc: ") as error:
        rawlxc.check(line)
    assert reason in str(error.value)


def test_a_start_in_liblxcs_words() -> None:
    spec = Spec(
        name="c1", hostname="c1", rootfs=Overlay(("/top", "/base"), "/own"),
        idmap=(IdMapEntry("u", 0, 1000000, 65536), IdMapEntry("g", 0, 1000000, 65536)),
        environment={"A": "b"}, disks=(Disk("/mnt", "/srv", readonly=True, required=False),),
        nodes=(Node("/dev/kvm", "c", 10, 232),), rlimits={"core": (0, -1)},
        sysctls={"net.core.somaxconn": "5"}, control_files=(("cgroup2/io.weight", "9"),),
        caps_drop=(21,), guest_api="/api",
    )  # fmt: skip
    text = lxcconf.describe(spec)
    for line in (
        "lxc.uts.name = c1", "lxc.rootfs.path = overlay:/base:/top:/own",
        "lxc.idmap = u 0 1000000 65536", "lxc.idmap = g 0 1000000 65536",
        "lxc.mount.entry = /mnt srv none bind,ro,optional 0 0",
        "lxc.mount.entry = /api dev/lxd none bind,ro,create=dir 0 0",
        "lxc.prlimit.core = 0:unlimited", "lxc.sysctl.net.core.somaxconn = 5",
        "lxc.environment = A=b", "lxc.cgroup2.io.weight = 9", "lxc.cap.drop = sys_admin",
    ):  # fmt: skip
        assert f"{line}\n" in text
    assert "lxc.rootfs.path = dir:/r\n" in lxcconf.describe(
        Spec(name="c", hostname="c", rootfs=Directory("/r"), idmap=())
    )
