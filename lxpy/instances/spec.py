"""build_spec: an instance and what its parts have become -> what the supervisor is asked to run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lxpy.errors import NotSupported
from lxpy.instances import rawlxc
from lxpy.instances.devices.plans import DevicePlan
from lxpy.instances.idmaps import IdMap
from lxpy.instances.limits import Host, build_limits
from lxpy.instances.model import Instance
from lxpy.instances.rawlxc import RawLxc
from lxpy.instances.rlimits import rlimits
from lxpy.instances.syscalls import build_policy, intercepted
from lxpy.runtime.spec import Directory, FileWrite, IoLimit, Overlay, Spec

INIT = ("/sbin/init",)
#: what a user namespace, or the other namespaces, give an instance of its own
_OWN_SYSCTLS = re.compile(
    r"net[./].*|kernel[./](shm.*|msg.*|sem|pid_max|hostname|domainname)|fs[./]mqueue[./].*"
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What storage, the id pool, devices and templates have made ready for one start."""

    rootfs: Overlay | Directory
    idmap: IdMap
    devices: DevicePlan = DevicePlan()
    files: tuple[FileWrite, ...] = ()
    cpus: str | None = None
    io: tuple[IoLimit, ...] = ()


@dataclass(frozen=True, slots=True)
class Paths:
    """Host paths of one instance: logs, and the directory shown at /dev/lxd, if there is one."""

    log: str
    console_log: str
    guest_api: str | None = None


def build_spec(instance: Instance, parts: Parts, host: Host, paths: Paths) -> Spec:
    """Return the spec of one start.

    Raises NotSupported for a key that this version cannot honour, InvalidConfig for a limit that
    does not fit the host.
    """
    config = instance.expanded_config
    raw = rawlxc.parse(config.get("raw.lxc", ""))
    sysctls = {**_after(config, "linux.sysctl."), **raw.sysctls}
    _check_startable(instance, raw, sysctls)
    return Spec(
        name=instance.unique_name,
        hostname=instance.name,
        rootfs=parts.rootfs,
        idmap=parts.idmap.entries,
        init=raw.init or INIT,
        environment={**environment(config), **raw.environment},
        privileged=instance.privileged,
        nesting=instance.nesting,
        live=instance.flag("security.live", default=True),
        disks=(*parts.devices.disks, *raw.disks),
        nodes=parts.devices.nodes,
        proxies=parts.devices.proxies,
        files=parts.files,
        limits=build_limits(config, host, parts.cpus, parts.io),
        rlimits={**rlimits(config), **raw.rlimits},
        sysctls=sysctls,
        seccomp="" if raw.no_seccomp else build_policy(config),
        intercept=intercepted(config),
        caps_drop=tuple(sorted(raw.dropped)),
        control_files=tuple(raw.control_files),
        lxcfs=host.lxcfs,
        guest_api=paths.guest_api if instance.flag("security.devlxd", default=True) else None,
        console_log=paths.console_log,
        log=paths.log,
    )


def _check_startable(instance: Instance, raw: RawLxc, sysctls: Mapping[str, str]) -> None:
    """Raise NotSupported when a key would be honoured only in name."""
    if not instance.privileged:
        return
    for key in sysctls:
        if not _OWN_SYSCTLS.fullmatch(key):
            raise NotSupported(
                f'Instance "{instance.name}" cannot start: "linux.sysctl.{key}" of a privileged '
                "instance would change the host; set it there, or unset security.privileged"
            )
    for line in raw.unprivileged:
        raise NotSupported(
            f'Instance "{instance.name}" cannot start: "{line}" of raw.lxc would give a privileged '
            "instance the host; take it out, or unset security.privileged"
        )


def environment(config: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that an expanded config adds, for init and for commands."""
    return _after(config, "environment.")


def _after(config: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {
        key.removeprefix(prefix): value
        for key, value in config.items()
        if value and key.startswith(prefix)
    }
