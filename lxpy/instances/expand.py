"""Profiles and an instance's own values, merged: later profiles win, its own values most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def expand_config(profiles: Iterable[Mapping[str, str]], own: Mapping[str, str]) -> dict[str, str]:
    """Return the config that counts, key by key. A key set to "" hides that of a profile."""
    expanded: dict[str, str] = {}
    for config in profiles:
        expanded.update(config)
    expanded.update(own)
    return expanded


def expand_devices(
    profiles: Iterable[Mapping[str, Mapping[str, str]]], own: Mapping[str, Mapping[str, str]]
) -> dict[str, Mapping[str, str]]:
    """Return the devices that count: a device replaces one of the same name as a whole."""
    expanded: dict[str, Mapping[str, str]] = {}
    for devices in profiles:
        expanded.update(devices)
    expanded.update(own)
    return expanded


def without_unset(
    devices: Mapping[str, Mapping[str, str]] | None,
) -> dict[str, dict[str, str]]:
    """Return devices as they are kept: without the options that are ""."""
    return {
        name: {key: value for key, value in given.items() if value != ""}
        for name, given in (devices or {}).items()
    }


def merge_patch(own: Mapping[str, str], patch: Mapping[str, str] | None) -> dict[str, str]:
    """Return `own` changed by a PATCH: keys given win, keys given as "" are removed."""
    merged = {**own, **(patch or {})}
    return {key: value for key, value in merged.items() if value != ""}


def changed_keys(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return the sorted keys whose value differs; unset and "" are the same."""
    return sorted(
        key for key in old.keys() | new.keys() if (old.get(key) or "") != (new.get(key) or "")
    )


def acting(devices: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Return devices without what users note in them: those options act on nothing."""
    return {
        name: {key: value for key, value in each.items() if not key.startswith("user.")}
        for name, each in devices.items()
    }


def device_changes(
    old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]
) -> tuple[list[str], list[str], list[str]]:
    """Return the sorted names of devices added, removed and changed."""
    both = old.keys() & new.keys()
    return (
        sorted(new.keys() - old.keys()),
        sorted(old.keys() - new.keys()),
        sorted(name for name in both if changed_keys(old[name], new[name])),
    )
