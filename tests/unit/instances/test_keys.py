"""The table of instance keys."""

from __future__ import annotations

import pytest

from lxpy.errors import InvalidConfig
from lxpy.instances import keys


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("boot.autostart", "true"), ("limits.cpu", "2"), ("limits.cpu.allowance", "50%"),
        ("limits.cpu.allowance", "25ms/100ms"), ("limits.memory", "50%"),
        ("limits.kernel.nofile", "1024:unlimited"), ("linux.sysctl.net.ipv4.ip_forward", "1"),
        ("linux.sysctl.net/ipv4/conf/eth0.1/forwarding", "1"), ("environment.PATH", "/bin"),
        ("user.anything at all", "x"), ("image.os", "debian"), ("raw.lxc", "lxc.environment = A=b"),
        ("volatile.eth0.hwaddr", "00:16:3e:00:00:01"), ("volatile.uuid", "x"),
        ("volatile.my.nic.last_state.created", "false"), ("volatile.last_state.power", "RUNNING"),
        ("volatile.idmap.next", "[]"), ("snapshots.schedule", "@daily"),
        ("snapshots.expiry", "2w"), ("raw.idmap", "both 1000 1000"), ("nvidia.runtime", "false"),
        ("security.syscalls.deny", "mount\n# no more\nreboot errno 1"), ("limits.cpu", ""),
        ("cloud-init.user-data", "#cloud-config\npackages: [a]"), ("security.live", "false"),
        ("cloud-init.user-data", "#!/bin/sh\nx: ["),
    ],
)  # fmt: skip
def test_known(key: str, value: str) -> None:
    keys.validate({key: value})


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("limits.cpus", "1", "Unknown configuration key: limits.cpus"),
        ("limits.kernel.files", "1", "Unknown configuration key: limits.kernel.files"),
        ("volatile.foo", "1", "Unknown configuration key: volatile.foo"),
        ("linux.sysctl.../x/../y", "1", "Unknown configuration key"),
        ("linux.sysctl.net/../../x", "1", "Unknown configuration key"),
        ("environment.A=B", "1", "Unknown configuration key"),
        ("security.privileged", "x", 'Invalid value for a boolean "x"'),
        ("limits.cpu", "x", "Invalid CPU limit syntax"),
        ("limits.cpu.priority", "11", 'Invalid value for a limit "11". Must be between 0 and 10'),
        ("limits.cpu.allowance", "half", "Invalid allowance: half"),
        ("limits.cpu.allowance", "0%", "Invalid allowance: 0%"),
        ("limits.cpu.allowance", "25ms/0ms", "Invalid allowance"),
        ("limits.memory", "lots", "Invalid value: lots"),
        ("limits.memory.enforce", "x", 'Invalid value "x" (not one of [hard soft])'),
        ("limits.kernel.nofile", "9:1", "Invalid value: 9:1"),
        ("limits.kernel.nofile", "a", "Invalid value: a"),
        ("limits.processes", "0", 'Invalid value for an integer "0"'),
        ("raw.idmap", "x", 'Invalid raw.idmap line "x"'),
        ("volatile.idmap.next", "{", "Invalid idmap value specified"),
        ("security.syscalls.deny", "rm -rf", "Invalid seccomp policy"),
        (
            "security.syscalls.deny",
            "nosuch",
            'Invalid seccomp policy: unknown system call "nosuch"',
        ),
        (
            "security.syscalls.allow",
            "read",
            "Invalid seccomp policy: the policy does not allow execve",
        ),
        ("raw.seccomp", "read", "Invalid seccomp policy: the first line is the version"),
        ("cloud-init.user-data", "#cloud-config\na: [", "Invalid value: it is not YAML"),
        ("snapshots.pattern", "a/b", 'Invalid value "a/b"'),
    ],
)
def test_refused(key: str, value: str, text: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        keys.validate({key: value})
    assert str(caught.value).startswith(text)
    assert key in str(caught.value)


def test_keys_that_do_not_go_together() -> None:
    config = {"security.syscalls.allow": "execve", "security.syscalls.deny": "write"}
    with pytest.raises(InvalidConfig, match="^security.syscalls.allow is mutually exclusive"):
        keys.validate(config)
    keys.validate({"security.syscalls.allow": "execve", "security.syscalls.deny_compat": "false"})
    with pytest.raises(InvalidConfig, match="old name"):
        keys.validate_expanded({"security.syscalls.blacklist": "a", "security.syscalls.deny": "a"})


def test_profiles_have_no_state() -> None:
    keys.validate({"limits.cpu": "1"}, profile=True)
    for key in ("volatile.uuid", "image.os"):
        with pytest.raises(InvalidConfig, match="only be set on instances"):
            keys.validate({key: "x"}, profile=True)


def test_live_update() -> None:
    changed = ["limits.memory", "security.privileged", "volatile.uuid", "user.x"]
    assert keys.not_live(changed) == ["security.privileged", "user.x"]


def test_a_copy_has_no_state_of_its_source() -> None:
    config = {"user.a": "1", "volatile.eth0.hwaddr": "x", "volatile.base_image": "f"}
    assert keys.copied(config) == {"user.a": "1", "volatile.base_image": "f"}


def test_every_key_is_documented() -> None:
    names = [key.name for key in keys.INSTANCE_KEYS]
    assert len(names) == len(set(names))
    for key in keys.INSTANCE_KEYS:
        if not key.name.startswith("volatile."):
            assert key.description, key.name
        if key.default and key.name != "linux.sysctl.*":
            keys.INSTANCE_KEYS.check(key.name, key.default)


@pytest.mark.parametrize("variable", ["LXPY_UNPRIVILEGED_ONLY", "LXD_UNPRIVILEGED_ONLY"])
def test_only_unprivileged(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    wrong = ({"security.privileged": "true"}, {"raw.idmap": "both 0 1000"})
    for config in wrong:
        keys.validate(config)
    monkeypatch.setenv(variable, "true")
    for config in wrong:
        with pytest.raises(InvalidConfig, match="only allow unprivileged containers"):
            keys.validate(config, profile=True)
    keys.validate({"security.privileged": "false", "raw.idmap": "both 1000 1000"})
