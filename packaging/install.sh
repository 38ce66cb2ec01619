#!/bin/sh
# install.sh [dependencies|develop|install]
# Installs lxpy from this source tree; run again, it does only what has changed.
#   dependencies  the host's tools and a virtual environment with the libraries
#   develop       the same with what `make check` and `make test` need
#   install       (default) the same with lxpy itself, its commands and its services
# Environment: PREFIX (/opt/lxpy), BINDIR (/usr/local/bin), PYTHON (/usr/bin/python3),
# SERVICES=no leaves service manager, group and kernel settings alone, APT=no leaves apt alone.
set -eu
cd "$(dirname "$0")/.."
PREFIX=${PREFIX:-/opt/lxpy}
BINDIR=${BINDIR:-/usr/local/bin}
PYTHON=${PYTHON:-/usr/bin/python3}
[ -x "$PYTHON" ] || PYTHON=$(command -v python3) || PYTHON=/usr/bin/python3
stamps=$PREFIX/stamps

# What the daemon calls (see `lxpy doctor`), and what the tests need besides.
host_packages="python3 python3-venv ca-certificates dnsmasq-base iproute2 lxcfs mmdebstrap nftables
    squashfs-tools tar xz-utils zstd bzip2 gzip btrfs-progs"
test_packages="lxd-client busybox-static jq curl git xfsprogs genisoimage openssh-client sshfs"

say() { echo "lxpy: $*"; }
die() { say "$*" >&2; exit 1; }

apt_install() { # PACKAGE...: those missing
    [ "${APT:-yes}" = yes ] && command -v apt-get >/dev/null || return 0
    missing=
    for package; do
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
        installed) ;;
        *) missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    say "apt-get install$missing"
    export DEBIAN_FRONTEND=noninteractive
    for update in no yes; do
        [ $update = no ] || apt-get -o DPkg::Lock::Timeout=300 update -qq || true
        # shellcheck disable=SC2086
        log=$(apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $missing 2>&1) && return 0
    done
    echo "$log" >&2
    die "apt-get could not install:$missing"
}

virtual_environment() {
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        die "$PYTHON is missing or older than 3.11; set PYTHON to another interpreter"
    if ! "$PREFIX/bin/python" -c 'import pip' 2>/dev/null; then
        [ -z "$(ls -A "$PREFIX" 2>/dev/null)" ] || [ -e "$PREFIX/pyvenv.cfg" ] ||
            die "$PREFIX is in use by something else; choose another PREFIX"
        say "virtual environment $PREFIX ($("$PYTHON" --version))"
        # A distribution upgrade exchanges the interpreter below an old environment.
        "$PYTHON" -m venv --clear "$PREFIX" || die "could not make $PREFIX (python3-venv installed?)"
    fi
    mkdir -p "$stamps"
}

pip() { "$PREFIX/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

fingerprint() { # FILE...: of the files' names, their content, and the interpreter
    {
        "$PREFIX/bin/python" --version
        find "$@" -type f ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -d' ' -f1
}

unchanged() { [ "$(cat "$stamps/$1" 2>/dev/null)" = "$2" ]; } # NAME VALUE
record() { echo "$2" >"$stamps/$1"; }

requirements() { # the lists of setup.cfg, one requirement a line
    "$PREFIX/bin/python" - "$@" <<'EOF'
import configparser, sys

config = configparser.ConfigParser()
config.read("setup.cfg")
lists = {"install": config["options"]["install_requires"], "dev": config["options.extras_require"]["dev"]}
print("setuptools >= 75\nwheel", *(lists[name].strip() for name in sys.argv[1:]), sep="\n")
EOF
}

libraries() { # NAME...
    value="$(fingerprint setup.cfg) $*"
    unchanged "libraries-$1$2" "$value" && return 0
    say "libraries into $PREFIX"
    list=$(mktemp)
    requirements $1 $2 >"$list"
    pip install --quiet --requirement "$list" || { rm -f "$list"; die "pip failed"; }
    rm -f "$list"
    record "libraries-$1$2" "$value"
}

package() {
    sources="lxpy migrations profiles templates setup.cfg pyproject.toml README.md LICENSE"
    value="$(fingerprint $sources packaging/launchers.sh) $BINDIR"
    if unchanged package "$value" && [ -x "$BINDIR/lxpyd" ]; then return 0; fi
    say "lxpy into $PREFIX, commands into $BINDIR"
    # Built from a copy: nothing is left in the source tree, and nothing stale gets in.
    copy=$(mktemp -d)
    tar -c --exclude=__pycache__ $sources | tar -x -C "$copy"
    pip install --quiet --no-deps --no-build-isolation --force-reinstall "$copy" ||
        { rm -rf "$copy"; die "pip failed"; }
    rm -rf "$copy"
    site=$("$PREFIX/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    packaging/launchers.sh "$PREFIX/bin/python" "$site" "$PREFIX/bin"
    mkdir -p "$BINDIR"
    for command in lxpy lxpyd lxpy-supervisor; do ln -sfn "$PREFIX/bin/$command" "$BINDIR/$command"; done
    completion
    record package "$value"
    changed=yes
}

completion() { # where the shells look for it, if they are here
    [ "${SERVICES:-yes}" = yes ] || return 0
    for pair in bash:/usr/share/bash-completion/completions/lxpy zsh:/usr/share/zsh/vendor-completions/_lxpy \
        fish:/usr/share/fish/vendor_completions.d/lxpy.fish; do
        target=${pair#*:}
        [ ! -d "$(dirname "$target")" ] || "$PREFIX/bin/lxpy" completion "${pair%%:*}" >"$target" || rm -f "$target"
    done
    mkdir -p /usr/local/share/man/man1
    "$PREFIX/bin/lxpy" manpage >/usr/local/share/man/man1/lxpy.1 || rm -f /usr/local/share/man/man1/lxpy.1
}

criu() { # one that saves the memory of instances on this kernel; all else works without
    [ "${APT:-yes}" = yes ] && command -v apt-get >/dev/null || return 0
    for program in /opt/lxpy-criu/bin/criu "$(command -v criu || true)"; do
        version=$("$program" --version 2>/dev/null | sed -n 's/^Version: //p')
        [ -n "$version" ] && dpkg --compare-versions "$version" ge 4.2 && return 0
    done
    packaging/criu.sh || say "memory of instances cannot be saved: CRIU could not be had, see lxpy doctor"
}

case ${1:-install} in
dependencies | develop | install) ;;
*) die "unknown: $1" ;;
esac
[ "$(id -u)" = 0 ] || die "run this as root"
changed=no
# shellcheck disable=SC2086
apt_install $host_packages
virtual_environment
libraries install ''
criu
case ${1:-install} in
develop)
    # shellcheck disable=SC2086
    apt_install $test_packages
    libraries install dev
    ;;
install)
    package
    [ "${SERVICES:-yes}" = no ] || packaging/services.sh install "$BINDIR" "$changed"
    ;;
esac
