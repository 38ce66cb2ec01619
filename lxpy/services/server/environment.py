"""What the server is and runs on, as `GET /1.0` tells it."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import lxpy
from lxpy.api.server import Environment, StorageDriver
from lxpy.doctor import Host, is_nested, release
from lxpy.instances import architectures
from lxpy.services.instances.host import architecture
from lxpy.storage.drivers import Info

#: what clients take us for: they choose their ways by it
_SPOKEN = "5.0.2"
_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
#: LXC's features that clients know, and whether our runtime has them
_LXC_FEATURES = {
    "cgroup2": True,
    "core_scheduling": False,
    "devpts_fd": True,
    "idmapped_mounts_v2": True,
    "mount_injection_file": True,
    "network_gateway_device_route": True,
    "network_ipvlan": True,
    "network_l2proxy": True,
    "network_phys_macvlan_mtu": True,
    "network_veth_router": True,
    "pidfd": True,
    "seccomp_allow_deny_syntax": True,
    "seccomp_notify": True,
    "seccomp_proxy_send_notify_fd": True,
}


def describe(project: str, *, used: Sequence[Info], known: Sequence[Info]) -> Environment:
    """Return the environment of an installation whose pools have the drivers `used`.

    Reads files the first time: not for the event loop.
    """
    uname = os.uname()
    name, version = _os_release()
    return Environment(
        addresses=[],  # no HTTPS
        architectures=list(architectures.runnable(architecture())),
        certificate="",
        certificate_fingerprint="",
        driver="lxc",
        driver_version=_SPOKEN,
        firewall="nftables",
        kernel=uname.sysname,
        kernel_architecture=uname.machine,
        kernel_features=_kernel_features(),
        kernel_version=uname.release,
        lxc_features=_texts(_LXC_FEATURES),
        os_name=name,
        os_version=version,
        project=project,
        server="lxd",
        server_clustered=False,
        server_event_mode="full-mesh",
        server_name=socket.gethostname(),
        server_pid=os.getpid(),
        server_version=_SPOKEN,
        storage=" | ".join(each.name for each in used),
        storage_version=" | ".join(each.version for each in used),
        storage_supported_drivers=[
            StorageDriver(name=each.name, version=each.version, remote=each.remote)
            for each in known
        ],
        lxpy_version=lxpy.__version__,
    )


@cache
def _kernel_features() -> dict[str, str]:
    """Return LXD's kernel features; where a version decides, it is the one that brought them."""
    host = Host()
    have = release(host)
    listener = "user_notif" in host.read("/proc/sys/kernel/seccomp/actions_avail").split()
    return _texts(
        {
            "idmapped_mounts": have >= (5, 12) and not is_nested(host),
            "netnsid_getifaddrs": have >= (4, 18),
            "seccomp_listener": listener,
            "seccomp_listener_continue": listener and have >= (5, 5),
            "shiftfs": "shiftfs" in host.read("/proc/filesystems").split(),
            "uevent_injection": have >= (4, 17),
            "unpriv_fscaps": have >= (4, 14),
        }
    )


@cache
def _os_release() -> tuple[str, str]:
    for path in _OS_RELEASE:
        try:
            lines = Path(path).read_text(errors="replace").splitlines()
        except OSError:
            continue
        pairs = (line.split("=", 1) for line in lines if "=" in line)
        found = {key: value.strip("\"'") for key, value in pairs}
        return found.get("NAME", ""), found.get("VERSION_ID", "")
    return "", ""


def _texts(features: dict[str, bool]) -> dict[str, str]:
    return {name: "true" if present else "false" for name, present in features.items()}
