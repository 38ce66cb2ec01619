"""lxc.conf: what an instance was started with, in liblxc's words, for those who look there.

Nothing reads it: the runtime has its spec. Source: lxc.container.conf(5).
"""

from __future__ import annotations

from collections.abc import Iterator

from lxpy.kernel import caps
from lxpy.runtime.spec import Disk, Overlay, Spec


def describe(spec: Spec) -> str:
    """Return the text."""
    return "".join(f"{key} = {value}\n" for key, value in _settings(spec))


def _settings(spec: Spec) -> Iterator[tuple[str, str]]:
    yield "lxc.log.file", spec.log
    yield "lxc.console.logfile", spec.console_log
    yield "lxc.uts.name", spec.hostname
    yield "lxc.rootfs.path", _rootfs(spec)
    yield "lxc.init.cmd", " ".join(spec.init)
    for entry in spec.idmap:
        yield "lxc.idmap", f"{entry.kind} {entry.inside} {entry.outside} {entry.size}"
    for disk in spec.disks:
        yield "lxc.mount.entry", _mount(disk)
    if spec.guest_api:
        yield "lxc.mount.entry", f"{spec.guest_api} dev/lxd none bind,ro,create=dir 0 0"
    for node in spec.nodes:
        place = f"{node.path} {node.kind} {node.major}:{node.minor} {node.mode:04o}"
        yield "# device", f"{place} {node.uid}:{node.gid}"
    for name, (soft, hard) in spec.rlimits.items():
        yield f"lxc.prlimit.{name}", f"{_limit(soft)}:{_limit(hard)}"
    for name, value in spec.sysctls.items():
        yield f"lxc.sysctl.{name}", value
    for name, value in spec.environment.items():
        yield "lxc.environment", f"{name}={value}".replace("\n", "\\n")
    for name, value in spec.control_files:
        yield f"lxc.{name.replace('/', '.', 1)}", value
    if spec.caps_drop:
        names = [caps.NAMES[number] for number in spec.caps_drop if number < len(caps.NAMES)]
        yield "lxc.cap.drop", " ".join(names)
    for line in spec.seccomp.splitlines():
        yield "# seccomp", line


def _rootfs(spec: Spec) -> str:
    if isinstance(spec.rootfs, Overlay):
        return f"overlay:{':'.join([*reversed(spec.rootfs.lower), spec.rootfs.root])}"
    return f"dir:{spec.rootfs.path}"


def _mount(disk: Disk) -> str:
    options = ["rbind" if disk.recursive else "bind", *disk.raw_options.split(",")]
    options += ["ro"] * disk.readonly + ["optional"] * (not disk.required) + [disk.propagation]
    source, target = (path.replace(" ", "\\040") for path in (disk.source, disk.target))
    shown = ",".join(dict.fromkeys(filter(None, options)))
    return f"{source} {target.lstrip('/')} none {shown} 0 0"


def _limit(value: int) -> str:
    return "unlimited" if value < 0 else str(value)
