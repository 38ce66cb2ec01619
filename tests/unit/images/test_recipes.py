"""Recipes: those that ship are sound, wrong ones are refused by name, names find plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxpy.errors import Failed, NotFound, NotSupported
from lxpy.images import metadata
from lxpy.images.build import Builder, describe, dress
from lxpy.images.recipes import Recipes, parse
from lxpy.images.store import ImageStore
from lxpy.images.tools import TOOLS

RECIPE = """\
name: tiny
os: Tiny
tool: mmdebstrap
options: {components: main, where: "{mirror}/{release}/{version}/{arch}"}
packages: [one]
files:
  /etc/motd: {content: "hello"}
services: [default/sshd]
templates: {/etc/hostname: "{{ container.name }}"}
releases:
  - {name: second, version: "2", aliases: [stable], packages: [two]}
  - name: first
    version: "1"
    mirror: required
    files: {/etc/motd: {content: "old", mode: "600"}}
    properties: {description: An old one}
"""


@pytest.fixture(scope="module")
def shipped() -> Recipes:
    return Recipes.load("x86_64")


@pytest.fixture
def tiny() -> Recipes:
    recipe = parse(RECIPE, "tiny.yaml")
    return Recipes({recipe.name: recipe}, "x86_64")


def test_shipped_recipes(shipped: Recipes) -> None:
    listed = shipped.listed()
    names = {each.alias for each in listed}
    assert {"debian/12", "debian/13", "ubuntu/24.04", "alpine/3.23", "centos/7"} <= names
    assert {"almalinux/9", "rockylinux/9", "fedora/42"} <= names
    for each in listed:
        plan = shipped.find(each.alias)
        assert plan.tool in TOOLS and plan.alias == each.alias
        assert plan.packages or plan.tool == "wheel"
        assert plan.templates["/etc/hostname"].startswith("{{ container.name }}")
        for alias in each.aliases:
            assert shipped.find(alias) == plan
        if plan.tool == "dnf":
            assert plan.needs_mirror and plan.option("repositories", "http://m").count("http://m")
            assert "{" not in plan.option("key")


def test_no_mirror_is_named() -> None:
    """Which mirror is used is the tool's, or the administrator's choice."""
    for path in (Path(__file__).parents[3] / "templates/images").glob("*.yaml"):
        assert "://" not in path.read_text().replace("{mirror}", ""), path


@pytest.mark.parametrize(
    "name", ["debian/13", "debian/trixie", "debian", "debian/13/amd64", "debian/trixie/default"]
)
def test_names(shipped: Recipes, name: str) -> None:
    assert shipped.find(name).alias == "debian/13"


def test_unknown_names(shipped: Recipes) -> None:
    with pytest.raises(NotFound, match=r'No recipe for image "plan9": this version has al'):
        shipped.find("plan9")
    with pytest.raises(NotFound, match=r'"debian/3": this version has debian/13, debian/12'):
        shipped.find("debian/3")
    with pytest.raises(NotSupported, match="this host, x86_64"):
        shipped.find("debian/13/arm64")
    for name in ("debian/11/cloud", "debian/13/desktop", "debian/13/cloud/cloud"):
        with pytest.raises(NotSupported, match="in variant default"):
            shipped.find(name)


def test_a_variant_adds_to_its_release(shipped: Recipes) -> None:
    plain, cloud = shipped.find("debian/13"), shipped.find("debian/trixie/amd64/cloud")
    assert cloud.alias == "debian/13/cloud" and cloud.release == plain.release == "trixie"
    assert set(cloud.packages) - set(plain.packages) == {"cloud-init"}
    assert (plain.properties["variant"], cloud.properties["variant"]) == ("default", "cloud")
    assert cloud.alias in [each.alias for each in shipped.listed()]


def test_release_adds_to_its_distribution(tiny: Recipes) -> None:
    new, old = tiny.find("tiny/stable"), tiny.find("tiny/1")
    assert new.packages == ("one", "two") and old.packages == ("one",)
    assert new.files["/etc/motd"].bits == 0o644 and old.files["/etc/motd"].bits == 0o600
    assert new.properties["description"] == "Tiny 2 (second)"
    assert old.properties["description"] == "An old one"
    assert new.option("where", "http://m/") == "http://m/second/2/x86_64"
    assert old.needs_mirror and not new.needs_mirror


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("tool: mmdebstrap", "tool: magic"), "tool"),
        (("tool: mmdebstrap\n", ""), "release 2 has no tool"),
        (("  /etc/motd:", "  etc/motd:"), '"etc/motd" is no absolute path'),
        (("  /etc/motd:", "  /etc/../../motd:"), "is no absolute path"),
        (('mode: "600"', 'mode: "900"'), "is not octal"),
        (('version: "1"', 'version: "2"'), '"2" is no name for a release, or one twice'),
        (("os: Tiny", "os: Tiny\ncolour: green"), "colour"),
        (("releases:", "releases: ["), "tiny.yaml"),
    ],
)
def test_wrong_recipes(change: tuple[str, str], problem: str) -> None:
    with pytest.raises(Failed, match="Invalid image recipe tiny.yaml") as failure:
        parse(RECIPE.replace(*change), "tiny.yaml")
    assert problem in str(failure.value)


def test_dressing(tiny: Recipes, tmp_path: Path) -> None:
    plan = tiny.find("tiny")
    (tmp_path / "etc/init.d").mkdir(parents=True)
    (tmp_path / "etc/init.d/sshd").touch()
    (tmp_path / "etc/motd").symlink_to("/etc/passwd")
    dress(tmp_path, plan)
    assert (tmp_path / "etc/motd").read_text() == "hello"
    assert not (tmp_path / "etc/motd").is_symlink()
    assert (tmp_path / "etc/runlevels/default/sshd").readlink() == Path("/etc/init.d/sshd")


def test_dressing_goes_through_no_link(tiny: Recipes, tmp_path: Path) -> None:
    rootfs, outside = tmp_path / "rootfs", tmp_path / "outside"
    rootfs.mkdir()
    outside.mkdir()
    (rootfs / "etc").symlink_to(outside)
    with pytest.raises(Failed, match="leads elsewhere"):
        dress(rootfs, tiny.find("tiny"))
    assert not list(outside.iterdir())


def test_metadata_of_a_build(tiny: Recipes, tmp_path: Path) -> None:
    describe(tmp_path / "bundle", tiny.find("tiny"))
    found = metadata.parse((tmp_path / "bundle/metadata.yaml").read_text())
    assert found.architecture == "x86_64" and found.properties["os"] == "Tiny"
    (template,) = found.templates
    assert template.path == "/etc/hostname" and template.when == ("create", "copy", "rename")
    text = (tmp_path / "bundle/templates" / template.template).read_text()
    assert text == "{{ container.name }}"


async def test_missing_mirror_is_told(tiny: Recipes, tmp_path: Path) -> None:
    store = ImageStore(tmp_path, max_bytes=1, max_files=1)
    with pytest.raises(Failed, match=r"key images\.mirror\.tiny to the URL"):
        await Builder(store).build(tiny.find("tiny/1"))
    assert not list(tmp_path.iterdir())
