#!/bin/bash
# storage_incus.sh start|stop: Incus 6.0 in INCUS_DIR, from a tree of Debian 13 (INCUS_TREE, kept as a cache:
# 400 MB, half a minute to make). The daemon runs with that tree as its root, in a mount namespace of its own;
# its client runs on the host. Stopping removes everything it made, but for the cache.
set -euo pipefail
: "${INCUS_DIR:?}"
INCUS_TREE=${INCUS_TREE:-/var/cache/incus-trixie}
export INCUS_DIR INCUS_TREE
incus=$INCUS_TREE/usr/bin/incus

tree() {
    [ ! -x "$INCUS_TREE/usr/libexec/incus/incusd" ] || [ ! -x "$INCUS_TREE/usr/bin/zstd" ] || return 0
    rm -rf --one-file-system "$INCUS_TREE" "$INCUS_TREE.new"
    mmdebstrap --quiet --variant=minbase --include=incus,btrfs-progs,e2fsprogs,zstd trixie "$INCUS_TREE.new" >&2
    mv "$INCUS_TREE.new" "$INCUS_TREE"
}

# Runs in the namespace: whatever Incus mounts goes with its last process.
inside='
mount --rbind "$INCUS_TREE" "$INCUS_TREE"
cd "$INCUS_TREE"
for name in dev proc sys; do mount --rbind "/$name" "$name"; done
for name in run tmp var/log; do mount -t tmpfs tmpfs "$name"; done
mkdir -p mnt run/lock var/log/incus var/lib/incus var/lib/lxcfs
mount --bind "$INCUS_DIR" var/lib/incus
[ ! -d /var/lib/lxcfs/proc ] || mount --rbind /var/lib/lxcfs var/lib/lxcfs
pivot_root . mnt
umount --lazy /mnt
cd /
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root INCUS_DIR=/var/lib/incus \
    /usr/libexec/incus/incusd --group root
'

start() {
    tree
    mkdir -p "$INCUS_DIR"
    setsid unshare --mount --propagation private sh -euc "$inside" >"$INCUS_DIR.log" 2>&1 </dev/null &
    echo $! >"$INCUS_DIR.pid"
    for _ in $(seq 300); do
        "$incus" query /1.0 >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    cat "$INCUS_DIR.log" >&2
    return 1
}

stop() {
    pid=$(cat "$INCUS_DIR.pid" 2>/dev/null || true)
    if [ -n "$pid" ] && "$incus" query /1.0 >/dev/null 2>&1; then
        for name in $("$incus" list -c n -f csv); do "$incus" delete --force "$name" || true; done
        for image in $("$incus" image list -c f -f csv); do "$incus" image delete "$image" || true; done
        for pool in $("$incus" storage list -c n -f csv); do "$incus" storage delete "$pool" || true; done
    fi
    if [ -n "$pid" ]; then
        kill -PWR "$pid" 2>/dev/null || true # stops the instances, then itself
        for _ in $(seq 300); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
        kill -KILL "$pid" 2>/dev/null || true
    fi
    rm -rf --one-file-system "$INCUS_DIR" "$INCUS_DIR".{log,pid}
}

"$1"
