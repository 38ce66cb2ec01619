#!/bin/sh
# criu.sh [SUITE]
# Puts a CRIU that fits today's kernels into a prefix of its own, from a newer suite of the host's own Debian mirror:
# nothing of the host is changed, signatures are checked by apt with Debian's keyring. It runs by that suite's loader and
# libraries; the programs that it starts are the host's.
# Environment: CRIU_PREFIX (/opt/lxpy-criu), SUITE (forky).
set -eu
prefix=${CRIU_PREFIX:-/opt/lxpy-criu}
suite=${1:-${SUITE:-forky}}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "lxpy: $*"; }
die() { say "$*" >&2; exit 1; }

command -v apt-get >/dev/null || die "no apt here: install CRIU 4.2 or newer as your distribution offers it"
[ -r $keyring ] || die "$keyring is missing: install package debian-archive-keyring"
mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian //p' | head -n 1)
[ -n "$mirror" ] || die "the host's apt has no Debian mirror: install CRIU 4.2 or newer as your distribution offers it"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/etc/preferences.d"
: >"$work/status"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
apt() {
    apt-get -qq -o Dir::State="$work/state" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" \
        -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferencesparts="$work/etc/preferences.d" -o Dir::Etc::preferences=/dev/null \
        -o APT::Get::List-Cleanup=0 -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
}
say "CRIU from $suite into $prefix"
apt update || die "the mirror does not answer for $suite"
apt --no-install-recommends --download-only -y install criu >/dev/null || die "$suite has no CRIU that can be fetched"

tree=$work/tree
mkdir -p "$tree"
for package in "$work"/cache/archives/*.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x -C "$tree" --keep-directory-symlink; done
version=$(dpkg-deb --field "$work"/cache/archives/criu_*.deb Version)
libraries=$(dirname "$(find "$tree/usr/lib" -name 'libc.so.6' | head -n 1)")
loader=$(basename "$(find "$tree/usr" -name 'ld-linux*.so.*' | head -n 1)")
new=$prefix.new
rm -rf "$new"
mkdir -p "$new/lib" "$new/bin"
cp -L "$libraries"/*.so.* "$new/lib/"
[ -e "$new/lib/$loader" ] || cp -L "$(find "$tree/usr" -name "$loader" | head -n 1)" "$new/lib/"
cp "$tree/usr/sbin/criu" "$new/bin/criu.bin"
cat >"$new/bin/criu" <<WRAPPER
#!/bin/sh
exec $prefix/lib/$loader --library-path $prefix/lib --argv0 criu $prefix/bin/criu.bin "\$@"
WRAPPER
chmod 755 "$new/bin/criu"
echo "$version" >"$new/version"
rm -rf "$prefix"
mv "$new" "$prefix"
"$prefix/bin/criu" --version | head -n 1
