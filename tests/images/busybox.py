"""Build the tiny image that most tests boot: busybox as init, DHCP on eth0, two megabytes."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import time
from pathlib import Path

import yaml

BUSYBOX = Path("/bin/busybox")

DIRECTORIES = (
    *("bin", "dev", "etc", "home", "mnt", "opt", "proc", "root", "run", "sbin", "sys"),
    *("tmp", "usr", "usr/bin", "usr/sbin", "usr/share", "var", "var/log", "var/lib"),
)

INITTAB = """\
::sysinit:/etc/rcS
::respawn:/etc/dhcp
::ctrlaltdel:/sbin/reboot
::shutdown:/bin/sh -c 'echo down >>/var/log/boots'
"""

START = """\
#!/bin/sh
hostname -F /etc/hostname
ip link set lo up
echo up >>/var/log/boots
[ ! -e /etc/rc.local ] || . /etc/rc.local
"""

# A script, as inittab's lines are no shell and the name has to be filled in.
DHCP = """\
#!/bin/sh
while [ ! -e /sys/class/net/eth0 ]; do sleep 1; done
exec udhcpc -f -S -i eth0 -A 1 -t 20 -T 1 -s /etc/udhcpc.script -x hostname:$(hostname)
"""

LEASE = """\
#!/bin/sh
case $1 in
deconfig) ip addr flush dev $interface; ip link set $interface up ;;
bound|renew)
    ip addr flush dev $interface
    ip addr add $ip/$mask dev $interface
    [ -z "$router" ] || ip route replace default via ${router%% *} dev $interface
    : >/etc/resolv.conf
    [ -z "$domain" ] || echo "search $domain" >>/etc/resolv.conf
    for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done ;;
esac
"""

FILES: dict[str, tuple[str, int]] = {
    "etc/inittab": (INITTAB, 0o644),
    "etc/rcS": (START, 0o755),
    "etc/dhcp": (DHCP, 0o755),
    "etc/udhcpc.script": (LEASE, 0o755),
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "user:x:1000:1000:user:/home:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/bin/sh\n",
        0o644,
    ),
    "etc/group": ("root:x:0:\ntty:x:5:\nuser:x:1000:\nnogroup:x:65534:\n", 0o644),
    "etc/hostname": ("localhost\n", 0o644),
    "etc/hosts": ("127.0.0.1\tlocalhost\n", 0o644),
    "etc/os-release": ('ID=busybox\nNAME="Busybox"\nVERSION_ID=1\n', 0o644),
}

TEMPLATES = {
    "hostname.tpl": "{{ container.name }}\n",
    "hosts.tpl": "127.0.0.1\tlocalhost\n127.0.1.1\t{{ container.name }}\n",
}


def metadata(serial: str = "1") -> dict[str, object]:
    """Describe the image as LXD's metadata.yaml does; another serial is another fingerprint."""
    machine = os.uname().machine
    when = {"when": ["create", "copy"], "create_only": False, "properties": {}}
    return {
        "architecture": machine,
        "creation_date": int(time.time()),
        "properties": {
            "architecture": machine,
            "description": "Busybox, for tests",
            "os": "Busybox",
            "release": "test",
            "serial": serial,
        },
        "templates": {
            "/etc/hostname": {**when, "template": "hostname.tpl"},
            "/etc/hosts": {**when, "template": "hosts.tpl"},
        },
    }


class Tarball:
    """A tarball written member by member: no file needs to exist, hostile ones included."""

    def __init__(self, path: Path, mode: str = "w:gz") -> None:
        self.tar = tarfile.open(path, mode, format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def __enter__(self) -> Tarball:
        return self

    def __exit__(self, *_: object) -> None:
        self.tar.close()

    def directory(self, name: str, mode: int = 0o755) -> None:
        self.member(name, tarfile.DIRTYPE, mode)

    def file(self, name: str, content: bytes | str, mode: int = 0o644) -> None:
        data = content.encode() if isinstance(content, str) else content
        info = self._info(name, tarfile.REGTYPE, mode)
        info.size = len(data)
        self.tar.addfile(info, io.BytesIO(data))

    def symlink(self, name: str, target: str) -> None:
        self.member(name, tarfile.SYMTYPE, 0o777, linkname=target)

    def member(self, name: str, kind: bytes, mode: int = 0o644, **fields: object) -> None:
        """Add anything without content: directory, link, device node ..."""
        info = self._info(name, kind, mode)
        for key, value in fields.items():
            setattr(info, key, value)
        self.tar.addfile(info)

    @staticmethod
    def _info(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime = kind, mode, int(time.time())
        return info


def fill_rootfs(tarball: Tarball, prefix: str = "rootfs") -> None:
    """Add a rootfs that boots."""
    tarball.directory(prefix)
    for name in DIRECTORIES:
        mode = {"tmp": 0o1777, "root": 0o700}.get(name, 0o755)
        tarball.directory(f"{prefix}/{name}", mode)
    tarball.file(f"{prefix}/bin/busybox", BUSYBOX.read_bytes(), 0o755)
    listing = subprocess.run([BUSYBOX, "--list-full"], capture_output=True, text=True, check=True)
    for applet in listing.stdout.split():
        if applet not in ("bin/busybox", "linuxrc"):
            tarball.symlink(f"{prefix}/{applet}", "/bin/busybox")
    for name, (content, mode) in FILES.items():
        tarball.file(f"{prefix}/{name}", content, mode)


def build(path: Path, serial: str = "1") -> Path:
    """Write a unified image (gzip'd tarball) to `path`."""
    part = path.with_name(path.name + ".part")
    with Tarball(part) as tarball:
        fill_metadata(tarball, serial)
        fill_rootfs(tarball)
    return part.rename(path)


def build_split(meta: Path, rootfs: Path, serial: str = "split") -> tuple[Path, Path]:
    """Write the same image as two files: metadata and rootfs."""
    with Tarball(meta, "w:xz") as tarball:
        fill_metadata(tarball, serial)
    with Tarball(rootfs) as tarball:
        fill_rootfs(tarball, ".")
    return meta, rootfs


def fill_metadata(tarball: Tarball, serial: str = "1") -> None:
    """Add metadata.yaml and the templates it names."""
    tarball.file("metadata.yaml", yaml.safe_dump(metadata(serial)))
    tarball.directory("templates")
    for name, content in TEMPLATES.items():
        tarball.file(f"templates/{name}", content)


if __name__ == "__main__":
    import sys

    print(build(Path(sys.argv[1])))
