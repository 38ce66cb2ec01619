"""LXD's client: images and aliases."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.conformance.conftest import Lxc
from tests.images import busybox


def digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def test_import_list_show(lxc: Lxc, image: str, busybox_image: Path) -> None:
    fingerprint = digest(busybox_image)
    row = lxc("image", "list", image, "-f", "csv", "-c", "lFt").strip()
    assert row == f"{image},{fingerprint},CONTAINER"
    found = lxc.query(f"/1.0/images/{fingerprint}")
    assert found["size"] == busybox_image.stat().st_size
    assert found["type"] == "container" and found["public"] is False
    assert found["properties"]["os"] == "Busybox"
    assert [alias["name"] for alias in found["aliases"]] == [image]
    assert f"Fingerprint: {fingerprint}" in lxc("image", "info", image)


def test_import_again_is_refused(lxc: Lxc, image: str, busybox_image: Path) -> None:
    assert "already exists" in lxc.refused("image", "import", busybox_image)


def test_export_returns_the_same_bytes(
    lxc: Lxc, image: str, busybox_image: Path, tmp_path: Path
) -> None:
    lxc("image", "export", image, tmp_path)
    (exported,) = tmp_path.iterdir()
    assert digest(exported) == digest(busybox_image)


def test_split_image(lxc: Lxc, tmp_path: Path) -> None:
    meta, rootfs = busybox.build_split(tmp_path / "meta.tar.xz", tmp_path / "rootfs.tar.gz")
    lxc("image", "import", meta, rootfs, "--alias", "split", "--public", "shape=split")
    try:
        found = lxc.query(f"/1.0/images/{digest(meta, rootfs)}")
        assert found["public"] is True and found["properties"]["shape"] == "split"
        out = tmp_path / "out"
        out.mkdir()
        lxc("image", "export", "split", out)
        assert {digest(file) for file in out.iterdir()} == {digest(meta), digest(rootfs)}
    finally:
        lxc("image", "delete", "split")


def test_properties(lxc: Lxc, image: str) -> None:
    lxc("image", "set-property", image, "colour", "green")
    assert lxc("image", "get-property", image, "colour").strip() == "green"
    assert image in lxc("image", "list", "colour=green", "-f", "csv", "-c", "l")
    lxc("image", "unset-property", image, "colour")
    assert "colour" not in lxc("image", "show", image)


def test_edit(lxc: Lxc, image: str) -> None:
    text = lxc("image", "show", image)
    lxc("image", "edit", image, input=text.replace("public: false", "public: true"))
    assert "public: true" in lxc("image", "show", image)
    lxc("image", "edit", image, input=text)
    assert "public: false" in lxc("image", "show", image)


def test_aliases(lxc: Lxc, image: str, busybox_image: Path) -> None:
    fingerprint = digest(busybox_image)
    lxc("image", "alias", "create", "other/name", fingerprint)
    assert "other/name" in lxc("image", "alias", "list", "-f", "csv")
    lxc("image", "alias", "rename", "other/name", "third")
    assert lxc("image", "list", "third", "-f", "csv", "-c", "F").strip() == fingerprint
    assert "already exists" in lxc.refused("image", "alias", "create", image, fingerprint)
    lxc("image", "alias", "delete", "third")
    assert "not found" in lxc.refused("image", "alias", "delete", "third").lower()


@pytest.mark.parametrize("verb", ["info", "show", "delete"])
def test_unknown_image(lxc: Lxc, verb: str) -> None:
    assert "not found" in lxc.refused("image", verb, "no-such-image").lower()


def test_import_of_rubbish_leaves_nothing(lxc: Lxc, tmp_path: Path) -> None:
    before = lxc("image", "list", "-f", "csv", "-c", "F")
    rubbish = tmp_path / "rubbish.tar.gz"
    rubbish.write_bytes(b"this is no image" * 100)
    lxc.refused("image", "import", rubbish)
    assert lxc("image", "list", "-f", "csv", "-c", "F") == before
