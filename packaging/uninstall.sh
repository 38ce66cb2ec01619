#!/bin/sh
# uninstall.sh: removes what install.sh put here. Instances are stopped and kept in /var/lib/lxpy;
# PURGE=1 removes them and everything else there.
set -eu
cd "$(dirname "$0")"
PREFIX=${PREFIX:-/opt/lxpy}
BINDIR=${BINDIR:-/usr/local/bin}
state=/var/lib/lxpy

[ "$(id -u)" = 0 ] || { echo "lxpy: run this as root" >&2; exit 1; }
if [ "${SERVICES:-yes}" = yes ]; then
    if [ "${PURGE:-}" = 1 ] && [ -S "$state/unix.socket" ]; then
        "$PREFIX/bin/lxpy" list -c n -f csv | xargs -r "$PREFIX/bin/lxpy" delete --force
        "$PREFIX/bin/lxpy" network list -f json | "$PREFIX/bin/python" -c '
import json, sys
print(*(n["name"] for n in json.load(sys.stdin) if n["managed"]), sep="\n")' >"/tmp/lxpy-networks.$$"
        printf 'config: {}\ndevices: {}\n' | "$PREFIX/bin/lxpy" profile edit default
        xargs -r -n 1 "$PREFIX/bin/lxpy" network delete <"/tmp/lxpy-networks.$$"
        rm -f "/tmp/lxpy-networks.$$"
    fi
    ./services.sh remove
    # Where no service manager ran, the daemon was started by hand.
    [ ! -S "$state/unix.socket" ] || "$PREFIX/bin/lxpy" shutdown || true
    rm -f /usr/share/bash-completion/completions/lxpy /usr/share/zsh/vendor-completions/_lxpy \
        /usr/share/fish/vendor_completions.d/lxpy.fish /usr/local/share/man/man1/lxpy.1
fi
for command in lxpy lxpyd lxpy-supervisor; do
    [ "$(readlink "$BINDIR/$command")" != "$PREFIX/bin/$command" ] || rm -f "$BINDIR/$command"
done
rm -rf --one-file-system "$PREFIX"
if [ "${PURGE:-}" = 1 ]; then
    rm -rf --one-file-system "$state"
else
    [ ! -d "$state" ] || echo "lxpy: $state is kept; remove it with: rm -r $state"
fi
