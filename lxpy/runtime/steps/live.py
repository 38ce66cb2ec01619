"""/run of a systemd guest, with the few settings under which CRIU can dump and restore it.

Nothing in the rootfs changes: they live in memory and go with the container.
"""

from __future__ import annotations

import os

from lxpy.kernel import mounts
from lxpy.kernel.processes import file_owner
from lxpy.runtime.fs import Confined

#: Triggers of pressure (systemd 254: memory; 261: processor and disk, too) are not restored, and
#: their watcher would spin. One that finds /dev/null in its place does without.
ENVIRONMENT = {f"{each}_PRESSURE_WATCH": "/dev/null" for each in ("MEMORY", "CPU", "IO")}
_SERVICE = f"""[Service]
NotifyAccess=all
Environment={" ".join(f"{key}={value}" for key, value in ENVIRONMENT.items())}
"""
_SYSTEM_SERVICE = (
    _SERVICE
    + """ProtectHostname=no
PrivateIPC=no
PrivateUsers=no
"""
)
_MANAGER = """[Manager]
DefaultMemoryPressureWatch=off
DefaultCPUPressureWatch=off
DefaultIOPressureWatch=off
"""
_LOGIND = """[Service]
PrivateTmp=no
ProtectSystem=no
ProtectHome=no
ProtectControlGroups=no
ProtectKernelLogs=no
ProtectKernelModules=no
ProtectKernelTunables=no
ReadWritePaths=
"""
#: systemd 257 gives some services a /tmp of which only directories are mounted; CRIU cannot see
#: where they come from.
_GENERATOR = r"""#!/bin/sh
# Give services a whole private /tmp instead of disconnected directories: these cannot be restored.
for dir in /etc/systemd/system /run/systemd/system /usr/local/lib/systemd/system \
    /usr/lib/systemd/system /lib/systemd/system; do
    [ -d "$dir" ] || continue
    grep -lsE '^(DynamicUser=(yes|true|1|on)|PrivateTmp=disconnected)' "$dir"/*.service
done | while read -r file; do
    unit=${file##*/}
    mkdir -p "$1/$unit.d"
    printf '[Service]\nPrivateTmp=yes\n' >"$1/$unit.d/zz-live-tmp.conf"
done
exit 0
"""
FILES = (
    ("systemd/system/service.d/zz-live.conf", _SYSTEM_SERVICE, 0o644),
    ("systemd/user/service.d/zz-live.conf", _SERVICE, 0o644),
    ("systemd/system.conf.d/zz-live.conf", _MANAGER, 0o644),
    ("systemd/user.conf.d/zz-live.conf", _MANAGER, 0o644),
    # Of another name: of two drop-ins with one name, systemd reads the unit's own only.
    ("systemd/system/systemd-logind.service.d/zz-live-logind.conf", _LOGIND, 0o644),
    ("systemd/system-generators/live-snapshot", _GENERATOR, 0o755),
)


def mount_run(root: Confined, uid: int, gid: int) -> None:
    """Mount /run and write the settings, owned by the container's root."""
    options: dict[str, str | int | None] = {"mode": "0755", "size": "20%", "nr_inodes": "800k"}
    fd = mounts.make("tmpfs", options, mounts.NOSUID | mounts.NODEV)
    os.chown(".", uid, gid, dir_fd=fd)
    run = Confined(fd)
    with file_owner(uid, gid):
        for path, content, mode in FILES:
            run.write(path, content.encode(), mode)
        target = root.plain_directory("run")
    mounts.attach(fd, "/run", dir_fd=target)
    os.close(target)
    run.close()
