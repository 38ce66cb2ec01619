#!/bin/sh
# inside.sh STAGE [PYTEST ARGUMENT...]: what run.sh runs in the virtual machine.
set -eu
stage=$1; shift
{ read -r prefix; read -r python; read -r library; } <"$stage/places"
mkdir -p "$(dirname "$prefix")"
ln -s "$stage/prefix" "$prefix"
if [ ! -e "$python" ]; then
    cp "$stage/python" "$python"
    ln -s "$stage/library" "$library"
fi
modprobe loop
mkfs.ext4 -q /dev/vdb
mount /dev/vdb /var/tmp
chmod 1777 /var/tmp
cd "$stage/repository"
[ $# -gt 0 ] || set -- tests/system/test_storage_drivers.py tests/system/test_storage_lvm.py -k 'lvm or prjquota'
PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 exec "$prefix/bin/python" -m pytest -q -p no:cacheprovider \
    -o timeout=900 -rs "$@"
