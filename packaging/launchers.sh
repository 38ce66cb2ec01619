#!/bin/sh
# launchers.sh PYTHON LIBRARY[:LIBRARY...] DIRECTORY
# Writes lxpy, lxpyd and lxpy-supervisor into DIRECTORY. They start in isolated mode (-I) and
# without the site module (-S): a few milliseconds less than what pip writes for an entry point,
# and nothing in the caller's environment can change what they import.
set -eu
python=$1 libraries=$2 directory=$3
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

launcher() { # NAME MODULE
    cat >"$directory/.$1.new" <<EOF
#!$python -IS
import sys

sys.path.extend("$libraries".split(":"))

from $2 import main

sys.exit(main())
EOF
    chmod 755 "$directory/.$1.new"
    mv -f "$directory/.$1.new" "$directory/$1"
}

[ "${#python}" -lt 120 ] || { echo "launchers.sh: too long for a #! line: $python" >&2; exit 1; }
case $version in 3.1[1-9] | 3.[2-9]?) ;; *) echo "launchers.sh: Python $version is too old (3.11)" >&2; exit 1 ;; esac
mkdir -p "$directory"
launcher lxpy lxpy.cli.main
launcher lxpyd lxpy.daemon.main
launcher lxpy-supervisor lxpy.runtime.supervisor
