#!/bin/sh
# run.sh VM_RUN [PYTEST ARGUMENT...]: the tests that need another kernel, in a virtual machine.
#
# VM_RUN is a program that runs a command as root in a throw-away Debian with lvm2,
# thin-provisioning-tools, xfsprogs, btrfs-progs, rsync, nftables, dnsmasq and busybox-static, and an empty
# disk /dev/vdb:  VM_RUN --share DIRECTORY --timeout SECONDS -- COMMAND...
# It shows the directory to the guest at the same path. The interpreter and the libraries of this
# installation (PREFIX) come along, as the guest may have another Python.
set -eu
vm_run=$1; shift
here=$(cd "$(dirname "$0")/../.." && pwd)
prefix=${PREFIX:-/opt/lxpy}
# Not below /var/tmp, where the disk is mounted.
stage=$(mktemp -d /var/cache/lxpy-vm.XXXXXX)
trap 'rm -rf "$stage"' EXIT
trap 'exit 143' INT TERM

mkdir "$stage/repository"
(cd "$here" && git ls-files -z --cached --others --exclude-standard | xargs -0 sh -c \
    'for each; do [ ! -e "$each" ] || printf "%s\0" "$each"; done' sh | tar -c --null -T -) |
    tar -x -C "$stage/repository"
# Compiling takes minutes where every instruction is emulated.
"$prefix/bin/python" -m compileall -q "$stage/repository/lxpy" "$stage/repository/migrations"
python=$(readlink -f "$prefix/bin/python")
library=$("$python" -c 'import os; print(os.path.dirname(os.__file__))')
cp -al "$prefix" "$stage/prefix" 2>/dev/null || cp -a "$prefix" "$stage/prefix"
ln -sfn "$python" "$stage/prefix/bin/python3" # the guest may have another by that name
cp -a "$library" "$stage/library"
[ ! -d "$prefix-criu" ] || cp -a "$prefix-criu" "$stage/criu"
cp "$python" "$stage/python"
printf '%s\n' "$prefix" "$python" "$library" >"$stage/places"
"$vm_run" --share "$stage" --timeout "${VM_TIMEOUT:-3000}" -- \
    sh "$stage/repository/tests/vm/inside.sh" "$stage" "$@"
