"""raw.lxc: settings in liblxc's words, those that this runtime can honour.

Everything else is refused by name, with the reason: nothing is kept that has no effect.
Source: lxc.container.conf(5).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field

from lxpy.errors import InvalidConfig
from lxpy.instances.devices.disk import normal
from lxpy.instances.rlimits import NAMES as RLIMITS
from lxpy.instances.rlimits import parse_rlimit
from lxpy.kernel import caps
from lxpy.runtime.spec import Disk

_SYSCTL = re.compile(r"[A-Za-z0-9_-]+([./][A-Za-z0-9_:@-]+)+")
_CONTROL_FILE = re.compile(
    r"(blkio|cpu|cpuacct|cpuset|hugetlb|io|memory|misc|net_cls|net_prio|pids|rdma)"
    r"(\.[A-Za-z0-9_]+)+"
)
_MOUNT_FLAGS = ("noatime", "nodev", "noexec", "nosuid", "ro")
_MOUNT_WORDS = (
    *("bind", "rbind", "rw", "defaults", "optional", "create=dir", "create=file"),
    *_MOUNT_FLAGS,
)
#: what is so anyway: values with which these change nothing
_AS_IT_IS = {
    "lxc.apparmor.profile": ("unconfined", "unchanged"),
    "lxc.apparmor.allow_incomplete": ("0", "1"),
    "lxc.apparmor.allow_nesting": ("0", "1"),
    "lxc.autodev": ("1",),
}
#: hooks of commands that LXD, too, never uses
_NEVER_RUN = ("lxc.hook.clone", "lxc.hook.destroy")
#: beginnings of keys that are refused, and why
_REFUSED = (
    ("lxc.hook.", "hooks are programs that run on the host"),
    ("lxc.include", "files of the host are not read"),
    ("lxc.net", "use devices of type nic"),
    ("lxc.idmap", "use raw.idmap"),
    ("lxc.rootfs", "the root file system is the instance's volume"),
    ("lxc.log", "the log is lxc.log of the instance's logs"),
    ("lxc.console", "the console is the instance's"),
    ("lxc.uts", "the host name is the instance's name"),
    ("lxc.seccomp", "use raw.seccomp or security.syscalls.*"),
    ("lxc.apparmor", "there are no AppArmor profiles"),
    ("lxc.selinux", "there are no SELinux contexts"),
)


@dataclass(slots=True)
class RawLxc:
    """What the lines come to. Control files are named "cgroup2/memory.high", "cgroup/..."."""

    environment: dict[str, str] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    rlimits: dict[str, tuple[int, int]] = field(default_factory=dict)
    disks: list[Disk] = field(default_factory=list)
    control_files: list[tuple[str, str]] = field(default_factory=list)
    dropped: set[int] = field(default_factory=set)
    init: tuple[str, ...] = ()
    no_seccomp: bool = False
    #: lines that count only where there is a user namespace
    unprivileged: list[str] = field(default_factory=list)


def parse(text: str) -> RawLxc:
    """Read the lines. Raises InvalidConfig naming the one that cannot be honoured."""
    found = RawLxc()
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not key.startswith("lxc."):
            raise _wrong(line, "write it as lxc.KEY = VALUE")
        quoted = len(value) > 1 and value[0] == value[-1] == '"'
        _take(found, key, value[1:-1] if quoted else value)
    return found


def check(text: str) -> None:
    """Raise InvalidConfig when there is a line that cannot be honoured."""
    parse(text)


def _take(found: RawLxc, key: str, value: str) -> None:
    if key in _NEVER_RUN or (key in _AS_IT_IS and value in _AS_IT_IS[key]):
        return
    if key == "lxc.seccomp.profile" and not value:
        found.no_seccomp = True
        return
    for beginning, reader in _READERS.items():
        if key == beginning or (beginning.endswith(".") and key.startswith(beginning)):
            reader(found, key, value)
            return
    for beginning, reason in _REFUSED:
        if key.startswith(beginning):
            raise _wrong(key, reason)
    raise _wrong(key, "this runtime has no such setting")


def _environment(found: RawLxc, key: str, value: str) -> None:
    name, equals, text = value.partition("=")
    if not name or not equals:
        raise _wrong(key, "write it as NAME=VALUE; nothing is taken from the host's environment")
    found.environment[name] = text


def _sysctl(found: RawLxc, key: str, value: str) -> None:
    name = key.removeprefix("lxc.sysctl.")
    if not _SYSCTL.fullmatch(name):
        raise _wrong(key, f'"{name}" is no kernel setting')
    found.sysctls[name] = value


def _prlimit(found: RawLxc, key: str, value: str) -> None:
    name = key.removeprefix("lxc.prlimit.")
    if name not in RLIMITS:
        raise _wrong(key, f'"{name}" is no resource limit')
    try:
        found.rlimits[name] = parse_rlimit(value)
    except InvalidConfig as error:
        raise _wrong(key, str(error)) from error


def _control(found: RawLxc, key: str, value: str) -> None:
    hierarchy, _, file = key.removeprefix("lxc.").partition(".")
    if file == "devices.allow":
        found.unprivileged.append(key)  # nothing restricts devices there but the user namespace
    elif _CONTROL_FILE.fullmatch(file):
        found.control_files.append((f"{hierarchy}/{file}", value))
    else:
        raise _wrong(key, "only limits of cpu, memory, io, pids and the like can be set")


def _mount(found: RawLxc, key: str, value: str) -> None:
    words = [word.replace("\\040", " ") for word in value.split()]
    if len(words) < 4:
        raise _wrong(key, "write it as SOURCE TARGET none OPTIONS 0 0")
    source, target, kind, options = words[:4]
    chosen = options.split(",")
    if kind != "none" or not {"bind", "rbind"}.intersection(chosen):
        raise _wrong(key, "only bind mounts can be made: none bind,...")
    for word in chosen:
        if word not in _MOUNT_WORDS:
            raise _wrong(key, f'option "{word}" is none of {", ".join(_MOUNT_WORDS)}')
    if not source.startswith("/") or ".." in target.split("/"):
        raise _wrong(key, "source is an absolute path, target one in the root file system")
    flags = ",".join(word for word in chosen if word in _MOUNT_FLAGS)
    found.disks.append(
        Disk(
            source=source, target=normal(target), readonly="ro" in chosen,
            recursive="rbind" in chosen, shift=False, required="optional" not in chosen,
            raw_options=flags,
        )
    )  # fmt: skip


def _mount_auto(found: RawLxc, key: str, value: str) -> None:
    for word in value.split():
        kind, _, mode = word.partition(":")
        if kind not in ("proc", "sys", "cgroup") or mode not in ("", "rw", "mixed"):
            raise _wrong(key, f'"{word}" is none of proc, sys, cgroup with rw or mixed')
        if mode == "rw":
            found.unprivileged.append(f"{key}={word}")


def _drop(found: RawLxc, key: str, value: str) -> None:
    if not value:
        found.dropped.clear()
    found.dropped |= {_capability(key, word) for word in value.split()}


def _keep(found: RawLxc, key: str, value: str) -> None:
    kept = {_capability(key, word) for word in value.split() if word != "none"}
    found.dropped |= set(range(len(caps.NAMES))) - kept


def _capability(key: str, word: str) -> int:
    name = word.lower().removeprefix("cap_")
    if name not in caps.NAMES:
        raise _wrong(key, f'"{word}" is no capability')
    return caps.NAMES.index(name)


def _init(found: RawLxc, key: str, value: str) -> None:
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise _wrong(key, str(error)) from error
    if not words or not words[0].startswith("/"):
        raise _wrong(key, "init is an absolute path")
    found.init = tuple(words)


_READERS: dict[str, Callable[[RawLxc, str, str], None]] = {
    "lxc.cap.drop": _drop,
    "lxc.cap.keep": _keep,
    "lxc.cgroup.": _control,
    "lxc.cgroup2.": _control,
    "lxc.environment": _environment,
    "lxc.init.cmd": _init,
    "lxc.mount.auto": _mount_auto,
    "lxc.mount.entry": _mount,
    "lxc.prlimit.": _prlimit,
    "lxc.sysctl.": _sysctl,
}


def _wrong(what: str, reason: str) -> InvalidConfig:
    return InvalidConfig(f'raw.lxc: "{what}" cannot be honoured: {reason}')
