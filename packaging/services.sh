#!/bin/sh
# services.sh install BINDIR CHANGED | start | remove
# Registers lxpy with the service manager that runs here, if one does: systemd or OpenRC.
set -eu
cd "$(dirname "$0")"
units="lxpyd.socket lxpyd.service lxpy-supervisor.service lxpy-instances.service"

systemd() { [ -d /run/systemd/system ]; }
openrc() { [ -d /run/openrc ] && command -v rc-service >/dev/null; }

place() { # SOURCE TARGET MODE: with the commands' directory filled in
    sed "s|@BINDIR@|$bindir|g" "$1" >"$2.new"
    chmod "$3" "$2.new"
    mv -f "$2.new" "$2"
}

install() {
    getent group lxpy >/dev/null || groupadd --system lxpy 2>/dev/null || addgroup -S lxpy
    if [ -d /etc/sysctl.d ]; then
        cp sysctl.conf /etc/sysctl.d/60-lxpy.conf
        # A key this kernel lacks, or one that must not be written here, is no reason to stop.
        sysctl -q -e -p sysctl.conf 2>/dev/null || true
    fi
    if systemd; then
        for unit in $units; do place "systemd/$unit" "/etc/systemd/system/$unit" 644; done
        systemctl daemon-reload
        systemctl enable -q lxpyd.socket lxpyd.service lxpy-instances.service
        # Instances go on while the daemon changes.
        [ "$changed" = no ] || systemctl try-restart lxpyd.service
        start
    elif openrc; then
        place openrc/lxpyd /etc/init.d/lxpyd 755
        rc-update add lxpyd default >/dev/null
        if [ "$changed" = yes ] && rc-service -q lxpyd status 2>/dev/null; then rc-service lxpyd restart; else start; fi
    else
        echo "lxpy: no service manager runs here; start the daemon with: lxpyd --daemonize"
    fi
}

start() {
    if systemd; then
        systemctl start lxpyd.socket lxpyd.service lxpy-instances.service
    elif openrc; then
        rc-service -q lxpyd status 2>/dev/null || rc-service lxpyd start
    else
        return 3
    fi
}

remove() {
    if systemd; then
        # The last one stops the instances, then the daemon and the supervisor.
        for unit in lxpyd.socket lxpy-instances.service lxpyd.service lxpy-supervisor.service; do
            systemctl disable -q --now "$unit" 2>/dev/null || true
        done
        for unit in $units; do rm -f "/etc/systemd/system/$unit"; done
        systemctl daemon-reload
    elif openrc && [ -e /etc/init.d/lxpyd ]; then
        rc-service lxpyd shutdown || true
        rc-update -q del lxpyd default 2>/dev/null || true
        rm -f /etc/init.d/lxpyd
    fi
    rm -f /etc/sysctl.d/60-lxpy.conf
}

bindir=${2:-/usr/local/bin}
changed=${3:-no}
case ${1:-} in
install | start | remove) "$1" ;;
*) echo "usage: services.sh install BINDIR CHANGED | start | remove" >&2; exit 2 ;;
esac
