"""Profiles and own values merged."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxpy.errors import InvalidConfig
from lxpy.instances import model
from lxpy.instances.expand import (
    changed_keys,
    device_changes,
    expand_config,
    expand_devices,
    merge_patch,
)
from lxpy.instances.model import Instance, Profile

CONFIGS = st.dictionaries(st.sampled_from("abcde"), st.text(max_size=2))
DEVICES = st.dictionaries(st.sampled_from("abc"), CONFIGS)


def make(**changes: object) -> Instance:
    values: dict[str, object] = {
        "id": 1, "project": "default", "name": "c1", "architecture": "x86_64", "config": {},
        "devices": {}, "expanded_config": {}, "expanded_devices": {}, "profiles": (),
        "created_at": datetime(2026, 1, 1, tzinfo=UTC), **changes,
    }  # fmt: skip
    return Instance(**values)  # type: ignore[arg-type]  # the tests name fields only


@given(st.lists(CONFIGS), CONFIGS)
def test_the_last_one_who_says_something_counts(
    profiles: list[dict[str, str]], own: dict[str, str]
) -> None:
    expanded = expand_config(profiles, own)
    sources = [*profiles, own]
    assert expanded.keys() == {key for source in sources for key in source}
    for key, value in expanded.items():
        assert value == next(source[key] for source in reversed(sources) if key in source)


@given(st.lists(DEVICES), DEVICES)
def test_devices_are_replaced_as_a_whole(
    profiles: list[dict[str, dict[str, str]]], own: dict[str, dict[str, str]]
) -> None:
    expanded = expand_devices(profiles, own)
    sources = [*profiles, own]
    for name, device in expanded.items():
        assert device is next(source[name] for source in reversed(sources) if name in source)


@given(CONFIGS, CONFIGS)
def test_patch_merges_and_empty_removes(own: dict[str, str], patch: dict[str, str]) -> None:
    merged = merge_patch(own, patch)
    assert "" not in merged.values()
    for key in own.keys() | patch.keys():
        assert merged.get(key, "") == patch.get(key, own.get(key, ""))


@given(CONFIGS, CONFIGS)
def test_changes_lead_from_old_to_new(old: dict[str, str], new: dict[str, str]) -> None:
    changed = changed_keys(old, new)
    assert changed == changed_keys(new, old)
    patched = merge_patch(old, {key: new.get(key, "") for key in changed})
    assert patched == merge_patch(new, None)


def test_device_changes() -> None:
    old = {"a": {"x": "1"}, "b": {"x": "1"}, "c": {}}
    new = {"b": {"x": "2"}, "c": {"y": ""}, "d": {}}
    assert device_changes(old, new) == (["d"], ["a"], ["b"])


def test_an_instance_expands_again() -> None:
    profiles = [Profile("p", {"security.nesting": "true", "user.a": "1"}, {"eth0": {"a": "b"}})]
    instance = make(config={"user.a": "2"}).changed(profiles)
    assert instance.profiles == ("p",)
    assert instance.nesting
    assert instance.expanded_config["user.a"] == "2"
    assert instance.config == {"user.a": "2"}
    assert instance.changed(profiles, config={"security.nesting": ""}).nesting is False
    assert instance.changed([], devices={"eth0": {}}).expanded_devices == {"eth0": {}}


def test_reading_values() -> None:
    instance = make(expanded_config={"a": "yes", "n": "7", "e": ""})
    assert instance.flag("a")
    assert instance.flag("e", default=True)
    assert not instance.flag("b")
    assert instance.number("n") == 7
    assert instance.number("e", 3) == 3
    with pytest.raises(FrozenInstanceError):
        instance.name = "c2"  # type: ignore[misc]


def test_unique_names() -> None:
    assert make().unique_name == "c1"
    assert make(project="web").unique_name == "web_c1"
    for project, name in (("default", "c1"), ("web-1", "c1")):
        assert model.split_unique_name(model.unique_name(project, name)) == (project, name)


def test_root_device() -> None:
    root = {"type": "disk", "path": "/", "pool": "default"}
    devices = {"eth0": {"type": "nic"}, "root": root, "d": {"type": "disk", "path": "/d"}}
    assert make(expanded_devices=devices).root_device == ("root", root)
    with pytest.raises(InvalidConfig, match="^No root device could be found"):
        model.root_device({"d": {"type": "none", "path": "/"}})
    with pytest.raises(InvalidConfig, match='"root", "two"'):
        model.root_device({**devices, "two": root})
