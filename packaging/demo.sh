#!/bin/sh
# demo.sh: launches a Debian 13 container called "demo", shows it, and enters it.
# Without a terminal on stdin it prints what one would look at inside.
set -eu
lxpy=${LXPY:-lxpy}
socket=${LXPY_DIR:-/var/lib/lxpy}/unix.socket

show() { # COMMAND...: prints it as typed, then runs it
    printf '\n$ %s\n' "$*"
    "$@"
}

address() { $lxpy list '^demo$' -c 4 -f csv; }

ready() { "$lxpy" query /internal/ready >/dev/null 2>&1 || "$lxpy" query /1.0 >/dev/null 2>&1; }

if ! { [ -S "$socket" ] && ready; }; then
    # Another directory than the default is an installation of its own, never a service's.
    if [ -n "${LXPY_DIR:-}" ] || ! "$(dirname "$0")/services.sh" start; then
        show "${LXPYD:-lxpyd}" --daemonize
    fi
fi

if ! $lxpy info demo >/dev/null 2>&1; then
    show $lxpy launch "${DEMO_IMAGE:-images:debian/13}" demo
else
    $lxpy list '^demo$' -c s -f csv | grep -q RUNNING || show $lxpy start demo
fi
tries=0
while [ -z "$(address)" ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
show $lxpy list

if [ -t 0 ] && [ -t 1 ]; then
    echo
    echo "You are about to enter it. Leave with: exit. Remove it with: lxpy delete --force demo"
    show $lxpy exec demo -- bash
else
    show $lxpy exec demo -- systemctl is-system-running --wait || true
    show $lxpy exec demo -- grep PRETTY_NAME /etc/os-release
    show $lxpy exec demo -- ps -e -o pid,user,comm
    show $lxpy exec demo -- cat /proc/self/uid_map
    show $lxpy exec demo -- ip -4 -brief address show eth0
    echo
    echo "Enter it with: lxpy exec demo -- bash. Remove it with: lxpy delete --force demo"
fi
