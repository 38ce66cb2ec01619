#!/bin/sh
# inside.sh STAGE [PYTEST ARGUMENT...]: what run.sh runs in the virtual machine.
set -eu
stage=$1; shift
{ read -r prefix; read -r python; read -r library; } <"$stage/places"
mkdir -p "$(dirname "$prefix")"
ln -s "$stage/prefix" "$prefix"
[ ! -d "$stage/criu" ] || ln -s "$stage/criu" "$prefix-criu"
if [ ! -e "$python" ]; then
    cp "$stage/python" "$python"
    ln -s "$stage/library" "$library"
fi
# Emulated, udev takes seconds for each device: LVM makes the nodes by itself.
systemctl stop systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket
mkdir -p /etc/lvm
cat >>/etc/lvm/lvmlocal.conf <<'END'
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
devices { obtain_device_list_from_udev = 0 external_device_info_source = "none" }
END
modprobe loop
mkfs.ext4 -q /dev/vdb
mount /dev/vdb /var/tmp
chmod 1777 /var/tmp
cd "$stage/repository"
[ $# -gt 0 ] || set -- tests/system/test_memory_tracking.py tests/system/test_storage_drivers.py \
    tests/system/test_storage_lvm.py -k 'memory_tracking or lvm or prjquota'
LXPY_TESTS_PATIENCE=10 PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 exec "$prefix/bin/python" -m pytest -q -p no:cacheprovider \
    -o timeout=900 -rs "$@"
