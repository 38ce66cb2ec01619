#!/bin/bash
# lxd.sh start|stop: Debian's LXD, by hand, in LXD_DIR, with a directory pool and a bridge.
# Stopping removes everything it made.
set -euo pipefail
: "${LXD_DIR:?}"
export LXD_DIR
bridge=lxdbench0

subnet() { # a free one: LXD's own search pings, and finds none where a gateway answers for everyone
    for number in $(seq 1 250); do
        ip -4 route show table all | grep -q "10\.213\.$number\." || { echo "10.213.$number.1/24"; return; }
    done
}

start() {
    command -v lxd >/dev/null || apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends lxd >&2
    mkdir -p "$LXD_DIR"
    # Each running systemd holds about ten inotify instances; the kernel's default is 128 in all.
    [ "$(cat /proc/sys/fs/inotify/max_user_instances)" -ge 4096 ] || sysctl -q -w fs.inotify.max_user_instances=4096
    # As a package install has it: without it, instances would see the host's memory and cpus.
    if command -v lxcfs >/dev/null && ! findmnt -rn /var/lib/lxcfs >/dev/null; then
        mkdir -p /var/lib/lxcfs
        setsid lxcfs /var/lib/lxcfs >"$LXD_DIR.lxcfs.log" 2>&1 </dev/null &
        echo $! >"$LXD_DIR.lxcfs.pid"
        for _ in $(seq 50); do findmnt -rn /var/lib/lxcfs >/dev/null && break; sleep 0.1; done
    fi
    if ! lxd waitready --timeout=1 2>/dev/null; then
        setsid lxd --group root >"$LXD_DIR.log" 2>&1 </dev/null &
        echo $! >"$LXD_DIR.pid"
        lxd waitready --timeout=60
    fi
    lxc storage show default >/dev/null 2>&1 || lxd init --preseed <<EOF
config: {images.auto_update_interval: "0"}
networks:
- {name: $bridge, type: bridge, config: {ipv4.address: $(subnet), ipv4.nat: "true", ipv6.address: none}}
storage_pools:
- {name: default, driver: dir}
profiles:
- name: default
  devices:
    root: {type: disk, path: /, pool: default}
    eth0: {type: nic, name: eth0, network: $bridge}
EOF
}

stop() {
    if lxd waitready --timeout=1 2>/dev/null; then
        for name in $(lxc list -c n -f csv); do lxc delete --force "$name"; done
        for image in $(lxc image list -c F -f csv); do lxc image delete "$image"; done
        printf 'config: {}\ndevices: {}\n' | lxc profile edit default
        lxc network delete $bridge || true
        lxc storage delete default || true
        lxd shutdown --timeout=60 || true
    fi
    # What LXD leaves running and mounted.
    for pid in "$LXD_DIR.pid" "$LXD_DIR.lxcfs.pid"; do
        [ ! -e "$pid" ] || kill "$(cat "$pid")" 2>/dev/null || true
    done
    findmnt -rno TARGET | { grep "^$LXD_DIR/" || true; } | sort -r | while read -r target; do umount -l "$target"; done
    rm -rf --one-file-system "$LXD_DIR" "$LXD_DIR".{log,pid,lxcfs.log,lxcfs.pid}
}

"$1"
