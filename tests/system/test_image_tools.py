"""Bootstrapping by the tools of other distributions, from a package mirror on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lxpy.errors import Failed
from lxpy.images.build import Builder
from lxpy.images.progress import silent
from lxpy.images.recipes import Plan, Recipes, parse
from lxpy.images.store import ImageStore
from tests.images.streams import serve

NEEDED = ("dnf", "rpmbuild", "rpmsign", "createrepo_c", "gpg")
RECIPE = """\
name: tiny
os: Tiny
tool: dnf
mirror: required
options: {{repositories: "{{mirror}}/{{version}}", key: "{key}"}}
packages: [tiny-base]
releases: [{{name: one, version: "1"}}]
"""
SPEC = """\
Name: tiny-base
Version: 1
Release: 1
Summary: Tiny
License: None
%description
Tiny.
%install
mkdir -p %{buildroot}/bin
cp /bin/busybox %{buildroot}/bin/sh
%files
/bin/sh
"""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(
        not all(shutil.which(tool) for tool in NEEDED), reason=f"needs {', '.join(NEEDED)}"
    ),
]


def make_key(directory: Path) -> Path:
    """Make a key to sign packages with; the file that verifies them."""
    home = directory / "gnupg"
    home.mkdir(mode=0o700, parents=True)
    environment = {**os.environ, "GNUPGHOME": str(home)}
    gpg = ("gpg", "--batch", "--quiet", "--passphrase", "")
    subprocess.run(
        [*gpg, "--quick-gen-key", "tiny", "rsa2048", "sign"], env=environment, check=True
    )
    exported = subprocess.run(["gpg", "--armor", "--export"], env=environment, capture_output=True)
    (directory / "key.asc").write_bytes(exported.stdout)
    return directory / "key.asc"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A package repository with one package, signed; the directory to serve."""
    key = make_key(tmp_path / "signer")
    (tmp_path / "tiny.spec").write_text(SPEC)
    www = tmp_path / "www/1"
    www.mkdir(parents=True)
    subprocess.run(
        ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {tmp_path}/build", "--define",
         "debug_package %{nil}", "--define", f"_rpmdir {www}", tmp_path / "tiny.spec"],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        ["rpmsign", "--define", "_gpg_name tiny", "--define", f"__gpg {shutil.which('gpg')}",
         "--addsign", *www.rglob("*.rpm")],
        env={**os.environ, "GNUPGHOME": str(key.parent / "gnupg")}, check=True,
        capture_output=True,
    )  # fmt: skip
    subprocess.run(["createrepo_c", "--quiet", www], check=True)
    return www.parent


def plan(key: Path) -> Plan:
    recipe = parse(RECIPE.format(key=key), "tiny.yaml")
    return Recipes({"tiny": recipe}, os.uname().machine).find("tiny")


@pytest.fixture
async def store(tmp_path: Path) -> ImageStore:
    store = ImageStore(tmp_path / "store", max_bytes=1 << 30, max_files=1000)
    await store.sweep()
    return store


async def test_dnf(mirror: Path, store: ImageStore, tmp_path: Path) -> None:
    with serve(mirror) as server:
        stored = await Builder(store).build(plan(tmp_path / "signer/key.asc"), server.url, silent)
    assert (await store.inspect(stored)).properties["os"] == "Tiny"
    target = tmp_path / "target"
    target.mkdir()
    await store.unpack(stored.fingerprint, target)
    rootfs = target / "rootfs"
    assert (rootfs / "bin/sh").stat().st_size == Path("/bin/busybox").stat().st_size
    assert (rootfs / "var/lib/rpm/rpmdb.sqlite").exists()
    left = [str(path.relative_to(rootfs)) for path in rootfs.rglob("*") if "dnf" in path.name]
    assert not [path for path in left if path.startswith(("var/cache", "var/log", "var/tmp"))]
    assert not list((tmp_path / "store").glob(".incoming*"))


async def test_packages_are_verified(mirror: Path, store: ImageStore, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    with serve(mirror) as server:
        with pytest.raises(Failed, match="Cannot build tiny/1: dnf failed: .*GPG"):
            await Builder(store).build(plan(other), server.url, silent)
    assert os.listdir(tmp_path / "store") == []


async def test_mirror_without_packages(mirror: Path, store: ImageStore, tmp_path: Path) -> None:
    shutil.rmtree(mirror / "1/repodata")
    with serve(mirror) as server:
        with pytest.raises(Failed, match="package mirror http://127.0.0.1.* 404"):
            await Builder(store).build(plan(tmp_path / "signer/key.asc"), server.url, silent)
