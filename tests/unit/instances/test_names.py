"""Names, made up and given; architectures."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxpy.errors import BadRequest, Conflict, InvalidConfig
from lxpy.instances import architectures, names


@pytest.mark.parametrize("name", ["c1", "a", "A-b-9", "x" * 63])
def test_instance_names(name: str) -> None:
    assert names.check_name(name) == name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "Name must be 1-63 characters long"),
        ("x" * 64, "Name must be 1-63 characters long"),
        ("-a", 'Name must not start with "-" character'),
        ("a-", 'Name must not end with "-" character'),
        ("a_b", "Name can only contain alphanumeric and hyphen characters"),
        ("a/b", "Name can only contain alphanumeric and hyphen characters"),
        ("..", "Name can only contain alphanumeric and hyphen characters"),
        ("a\n", "Name can only contain alphanumeric and hyphen characters"),
        ("ä", "Name can only contain alphanumeric and hyphen characters"),
        ("1a", "Name must not start with a number"),
    ],
)
def test_not_instance_names(name: str, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        names.check_name(name)
    assert str(caught.value).startswith(f"Invalid instance name: {text}")


def test_other_names() -> None:
    assert names.check_snapshot_name("snap0") == "snap0"
    with pytest.raises(BadRequest, match='^Invalid snapshot name: Cannot contain "/"'):
        names.check_snapshot_name("a/b")
    for name in (".hidden", "-x", "a:b", "ä"):
        with pytest.raises(BadRequest, match="^Invalid snapshot name: Name can only contain"):
            names.check_snapshot_name(name)
    for name in ("", "..", "a b", "x" * 64, "a\0"):
        with pytest.raises(BadRequest, match="^Invalid profile name"):
            names.check_profile_name(name)
    for name in ("eth0.1:a/b_c-d", "/a"):
        names.check_device_name(name)
    for name in ("", ".a", "a b", "..", "x" * 64):
        with pytest.raises(InvalidConfig, match="Invalid device name"):
            names.check_device_name(name)


@given(st.randoms())
def test_made_up_names_are_names(random: object) -> None:
    choose = random.choice  # type: ignore[attr-defined]
    name = names.generate_name(set(), choose)
    assert names.check_name(name) == name


def test_made_up_names_are_free() -> None:
    def first(words: Sequence[str]) -> str:
        return words[0]

    name = names.generate_name(set(), first)
    assert names.generate_name({name}, first) == f"{name}-1"

    class Everything:
        def __contains__(self, name: object) -> bool:
            return True

    with pytest.raises(Conflict):
        names.generate_name(Everything())


def test_every_made_up_name_is_valid() -> None:
    for word in (*names.ADJECTIVES, *names.ANIMALS):
        assert word.isalpha()
        assert word.islower()
    assert len(set(names.ANIMALS)) == len(names.ANIMALS)
    assert len(set(names.ADJECTIVES)) == len(names.ADJECTIVES)


def test_architectures() -> None:
    assert architectures.lxd_name("amd64") == "x86_64"
    assert architectures.lxd_name("2") == "x86_64"
    assert architectures.lxd_name("AARCH64") == "aarch64"
    assert architectures.debian_name("x86_64") == "amd64"
    assert architectures.runnable("amd64") == ("x86_64", "i686")
    with pytest.raises(InvalidConfig, match="^Architecture isn't supported"):
        architectures.lxd_name("z80")
    assert architectures.DEBIAN.keys() == architectures.IDS.keys()
