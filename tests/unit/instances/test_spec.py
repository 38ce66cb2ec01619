"""The spec of a start: complete, JSON-able, and honest about what it cannot honour."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxpy import profiles
from lxpy.errors import NotFound, NotSupported
from lxpy.instances import devices, idmaps, keys
from lxpy.instances.devices.plans import volatile_config
from lxpy.instances.limits import Host
from lxpy.instances.model import Instance
from lxpy.instances.spec import Parts, Paths, build_spec
from lxpy.instances.syscalls import build_policy
from lxpy.kernel.policy import KILL, parse
from lxpy.kernel.seccomp import assemble
from lxpy.runtime import spec as runtime_spec
from lxpy.runtime.spec import FileWrite, Overlay, Spec
from tests.unit.instances.test_expand import make

HOST = Host(cpus=(0, 1), memory_bytes=4 << 30, lxcfs="/var/lib/lxcfs")
ROOTFS = Overlay(("/images/f/rootfs",), "/containers/c1")
PATHS = Paths(log="/logs/c1/lxpy.log", console_log="/logs/c1/console.log", guest_api="/run/g")


def build(instance: Instance) -> Spec:
    idmap = idmaps.choose(instance.expanded_config, {}, [], idmaps.IdPool())
    return build_spec(instance, Parts(ROOTFS, idmap), HOST, PATHS)


def test_defaults() -> None:
    spec = build(make(project="web"))
    assert spec == Spec(
        name="web_c1", hostname="c1", rootfs=ROOTFS,
        idmap=idmaps.build(1_000_000, 65_536).entries, lxcfs="/var/lib/lxcfs",
        guest_api="/run/g", console_log=PATHS.console_log, log=PATHS.log, seccomp=build_policy({}),
    )  # fmt: skip


def test_config_counts() -> None:
    config = {
        "environment.A": "1", "environment.B": "", "linux.sysctl.net.ipv4.ip_forward": "1",
        "limits.memory": "1GiB", "limits.kernel.nofile": "5", "security.nesting": "true",
        "security.live": "false", "security.devlxd": "false",
        "security.syscalls.deny": "mount\n\n # x\nreboot errno 1",
    }  # fmt: skip
    keys.validate(config)
    spec = build(make(expanded_config=config))
    assert spec.environment == {"A": "1"}
    assert spec.sysctls == {"net.ipv4.ip_forward": "1"}
    assert spec.limits.memory_bytes == 1 << 30
    assert spec.rlimits == {"nofile": (5, 5)}
    assert spec.nesting
    assert not spec.live
    assert spec.guest_api is None
    assert spec.seccomp.splitlines()[-2:] == [" # x", "reboot errno 1"]
    assert spec.idmap[0].size == idmaps.NESTING_SIZE


def test_privileged() -> None:
    spec = build(make(expanded_config={"security.privileged": "true"}))
    assert spec.privileged
    assert spec.idmap == ()


def test_seccomp() -> None:
    off = {"security.syscalls.deny_default": "false"}
    assert not assemble(build(make(expanded_config=off)).seccomp)
    some = build(make(expanded_config={**off, "security.syscalls.deny": "mount"})).seccomp
    assert [each.name for each in parse(some).rules] == ["mount"]
    assert parse(build(make()).seccomp).rejects_force_umount
    assert not parse(build_policy({"security.syscalls.blacklist_compat": "1"})).compat
    old = parse(build_policy({"security.syscalls.blacklist": "reboot"}))
    assert old.rules[-1].name == "reboot" and old.compat
    allowed = parse(build_policy({"security.syscalls.allow": "read\nexecve"}))
    assert allowed.default == KILL and len(allowed.rules) == 2
    assert build_policy({"raw.seccomp": "2\ndenylist", "security.syscalls.allow": "x"}) == (
        "2\ndenylist"
    )
    notified = parse(build_policy({"security.syscalls.intercept.mknod": "true"}))
    assert notified.notifies and not parse(build_policy({})).notifies


def test_a_privileged_instance_does_not_set_up_the_host() -> None:
    config = {"security.privileged": "true", "linux.sysctl.net.core.somaxconn": "5"}
    build(make(expanded_config=config))
    with pytest.raises(NotSupported, match="would change the host"):
        build(make(expanded_config={**config, "linux.sysctl.vm.swappiness": "5"}))
    build(make(expanded_config={"linux.sysctl.vm.swappiness": "5"}))


GOOD = {
    "limits.cpu": ["1", "2", "0-1", ""], "limits.memory": ["512MiB", "50%", ""],
    "limits.cpu.allowance": ["50%", "10ms/20ms"], "limits.processes": ["7"],
    "limits.kernel.nofile": ["1:2", "unlimited"], "security.nesting": ["true", "false"],
    "security.privileged": ["true", "false"], "environment.X": ["a", "ä\n"],
    "security.idmap.size": ["1000", "200000"], "raw.idmap": ["both 1000 1000", ""],
    "security.syscalls.deny": ["mount", "read\nwrite errno 5"],
}  # fmt: skip


@given(st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in GOOD.items()}))
def test_every_valid_config_gives_a_spec_that_survives_json(config: dict[str, str]) -> None:
    keys.validate(config)
    given_devices = dict(profiles.load("default", pool="p", network="n").devices)
    own = volatile_config(config, given_devices, lambda: "00:16:3e:00:00:01")
    keys.validate(own)
    instance = make(config=own, expanded_config=own, expanded_devices=given_devices)
    idmap = idmaps.choose(own, own, [], idmaps.IdPool())
    plan = devices.plan(own, given_devices)
    parts = Parts(ROOTFS, idmap, plan, (FileWrite("/etc/hostname", "c1\n"),))
    spec = build_spec(instance, parts, HOST, PATHS)
    text = json.dumps(runtime_spec.encode(spec))
    assert runtime_spec.decode(Spec, json.loads(text)) == spec
    keys.validate({**own, **idmaps.volatile(idmap)})
    assert idmaps.choose(own, {**own, **idmaps.volatile(idmap)}, [], idmaps.IdPool()) == idmap


def test_built_in_profiles_are_valid() -> None:
    assert "default" in profiles.names()
    for name in profiles.names():
        profile = profiles.load(name, pool="p", network="n")
        assert profile.name == name
        assert profile.description
        keys.validate(profile.config, profile=True)
        devices.validate(profile.devices, expanded=name == "default", instance="c1")
    with pytest.raises(NotFound, match='^Profile not found: "x"'):
        profiles.load("x", pool="p", network="n")


def test_the_default_profile_knows_its_installation() -> None:
    profile = profiles.load("default", pool="fast", network="br7")
    assert profile.devices["root"] == {"type": "disk", "path": "/", "pool": "fast"}
    assert profile.devices["eth0"]["network"] == "br7"
