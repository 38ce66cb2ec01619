#!/bin/bash
# run.sh [ARGUMENT...]: lxpyd and LXD side by side, measured by bench.py (which gets the arguments),
# and removed again. The report goes to benchmarks/report.md; RESULTS.md is written from it by hand.
# Environment: PREFIX (/opt/lxpy), WORK (/var/tmp/lxpy-bench), LXD=no measures lxpy alone.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PREFIX:-/opt/lxpy}/bin/python
work=${WORK:-/var/tmp/lxpy-bench}
cache=${LXPY_TESTS_CACHE:-/var/cache/lxpy-tests}
export LXPY_DIR=$work/lxpy LXD_DIR=$work/lxd LXPY_CONF=$work/conf LXD_CONF=$work/conf PYTHONPATH=.
export PATH=$work/bin:$PATH

stop() {
    [ ! -S "$LXPY_DIR/unix.socket" ] || lxpy shutdown --force || true
    [ "${LXD:-yes}" = no ] || benchmarks/lxd.sh stop || true
    bridge=$(cat "$work/bridge" 2>/dev/null || true)
    [ -z "$bridge" ] || ip link delete "$bridge" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}

image() { # the image both run: from the tests' cache, or built now
    found=$(ls -t "$cache"/debian-13.tar* 2>/dev/null | head -n 1 || true)
    if [ -n "$found" ]; then
        lxpy image import "$found" --alias debian/13
    else
        lxpy image build debian/13 --alias debian/13
    fi
    lxpy image export debian/13 "$work/debian"
    "$python" -m tests.images.busybox "$work/tiny.tar.gz"
    lxpy image import "$work/tiny.tar.gz" --alias tiny
}

trap stop EXIT
mkdir -p "$work/conf" "$LXPY_DIR"
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
packaging/launchers.sh "$python" "$PWD:$site" "$work/bin"
lxpyd --daemonize --log "$work/lxpyd.log"
image
lxpy network list -f csv | awk -F, '$3 == "YES" { print $1 }' >"$work/bridge"
targets=(--lxpy "$LXPY_DIR")
if [ "${LXD:-yes}" != no ]; then
    benchmarks/lxd.sh start
    lxc image import "$work"/debian* --alias debian/13
    targets+=(--lxd "$LXD_DIR")
fi
"$python" -m benchmarks.bench "${targets[@]}" --markdown benchmarks/report.md --json benchmarks/report.json "$@"
