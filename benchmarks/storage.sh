#!/bin/bash
# storage.sh [ARGUMENT...]: the storage of lxpyd, LXD and Incus side by side, measured by storage.py (which gets
# the arguments), and all removed again. The report goes to benchmarks/report-storage.md.
# Environment: PREFIX (/opt/lxpy), WORK (/var/tmp/lxpy-storage), SIZE of the btrfs pools (8GiB), LXD=no and INCUS=no
# leave one out, INCUS_TREE (/var/cache/incus-trixie).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PREFIX:-/opt/lxpy}/bin/python
work=${WORK:-/var/tmp/lxpy-storage}
cache=${LXPY_TESTS_CACHE:-/var/cache/lxpy-tests}
size=${SIZE:-8GiB}
export INCUS_TREE=${INCUS_TREE:-/var/cache/incus-trixie}
export LXPY_DIR=$work/lxpy LXD_DIR=$work/lxd INCUS_DIR=$work/incus PYTHONPATH=.
export LXPY_CONF=$work/conf LXD_CONF=$work/conf INCUS_CONF=$work/conf-incus
export PATH=$work/bin:$PATH
incus=$INCUS_TREE/usr/bin/incus
# No nics: these figures are of disks.
bare='{name: bare, config: {}, devices: {}}'

stop_lxpy() {
    [ -S "$LXPY_DIR/unix.socket" ] || return 0
    for name in $(lxpy list -c n -f csv); do lxpy delete --force "$name" || true; done
    for image in $(lxpy image list -c F -f csv); do lxpy image delete "$image" || true; done
    lxpy storage delete btr || true
    lxpy shutdown --force || true
}

stop_lxd() { # what lxd.sh does not know of
    if [ -S "$LXD_DIR/unix.socket" ]; then
        for name in $(lxc list -c n -f csv); do lxc delete --force "$name" || true; done
        for image in $(lxc image list -c F -f csv); do lxc image delete "$image" || true; done
        lxc storage delete btr || true
        lxc profile delete bare || true
    fi
    benchmarks/lxd.sh stop || true
}

end_rest() { # what a daemon of ours that did not start, or not end, leaves: its directory is on their command lines
    for path in /proc/[0-9]*; do
        pid=${path#/proc/}
        if [ "$pid" != $$ ] && tr '\0' ' ' 2>/dev/null <"$path/cmdline" | grep -qF -- "$LXPY_DIR/"; then
            kill "$pid" 2>/dev/null || true
        fi
    done
    findmnt -rno TARGET | { grep "^$work/" || true; } | sort -r | while read -r target; do umount -l "$target"; done
}

stop() {
    trap '' INT TERM
    stop_lxpy
    [ "${LXD:-yes}" = no ] || stop_lxd
    [ "${INCUS:-yes}" = no ] || benchmarks/storage_incus.sh stop || true
    bridge=$(cat "$work/bridge" 2>/dev/null || true)
    [ -z "$bridge" ] || ip link delete "$bridge" 2>/dev/null || true
    end_rest
    rm -rf --one-file-system "$work"
}

pools() { # CLIENT IMAGE: what each system gets; the pool `default` is a plain directory
    "$1" storage show default >/dev/null 2>&1 || "$1" storage create default dir
    "$1" storage create btr btrfs size="$size"
    "$1" profile create bare
    echo "$bare" | "$1" profile edit bare
    "$1" image import "$2" --alias debian/13
}

trap stop EXIT
trap 'exit 130' INT TERM
mkdir -p "$work/conf" "$work/conf-incus" "$LXPY_DIR"
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
packaging/launchers.sh "$python" "$PWD:$site" "$work/bin"
lxpyd --daemonize --log "$work/lxpyd.log"
lxpy network list -f csv | awk -F, '$3 == "YES" { print $1 }' >"$work/bridge"
image=$(ls -t "$cache"/debian-13.tar* 2>/dev/null | head -n 1 || true)
if [ -z "$image" ]; then
    lxpy image build debian/13 --alias built
    lxpy image export built "$work/debian"
    lxpy image delete built
    image=$(ls "$work"/debian*)
fi
pools lxpy "$image"
systems=(--lxpy "$LXPY_DIR")
! command -v lxc >/dev/null || systems+=(--lxc)
if [ "${LXD:-yes}" != no ]; then
    benchmarks/lxd.sh start
    pools lxc "$image"
    systems+=(--lxd "$LXD_DIR")
fi
if [ "${INCUS:-yes}" != no ]; then
    benchmarks/storage_incus.sh start
    pools "$incus" "$image"
    systems+=(--incus "$INCUS_DIR" --incus-client "$incus")
fi
"$python" -m benchmarks.storage "${systems[@]}" --scratch "$work" \
    --markdown benchmarks/report-storage.md --json benchmarks/report-storage.json "$@"
