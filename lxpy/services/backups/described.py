"""Instances as backups describe them: the objects of the API, as plain values.

Source: LXD docs, "Backups": `config` of index.yaml, which is backup.yaml, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from lxpy.api import storage as api
from lxpy.instances.model import Instance, Profile, RootVolume, Snapshot
from lxpy.services.instances.starting import volume_of
from lxpy.services.instances.views import Views

_ZERO = "0001-01-01T00:00:00Z"
#: what is true only of this host, or only while the instance runs
_LOCAL = re.compile(r"volatile\.(idmap\..*|last_state\..*|[^.]+\.host_name)")

Objects = dict[str, Any]


def config_of(
    views: Views,
    instance: Instance,
    snapshots: Iterable[Snapshot],
    pool: api.Pool,
    profiles: Iterable[Profile],
) -> Objects:
    """Return the `config` of an instance's backup."""
    found = list(snapshots)
    options = dict(volume_of(instance).config)

    def volume(name: str, written: RootVolume) -> Objects:
        return {
            "name": name, "description": written.description,
            "config": {**options, **written.config}, "content_type": "filesystem",
            "created_at": _ZERO,
        }  # fmt: skip

    return {
        "container": _portable(msgspec.to_builtins(views.show(instance))),
        "snapshots": [_portable(msgspec.to_builtins(views.snapshot(instance, s))) for s in found],
        "pool": {**msgspec.to_builtins(pool), "used_by": []},
        "profiles": [_profile(each) for each in profiles],
        "volume": {
            **volume(instance.name, instance.volume), "type": "container", "used_by": [],
            "location": "none", "project": instance.project,
        },
        "volume_snapshots": [
            {**volume(each.name, each.volume), "expires_at": _ZERO} for each in found
        ],
    }  # fmt: skip


def of_snapshot(config: Objects, name: str) -> Objects:
    """Return the backup.yaml of a snapshot: that of its instance without the other snapshots."""
    return {
        **config,
        "snapshots": [each for each in config["snapshots"] if each["name"] == name],
        "volume_snapshots": [],
    }


def portable(config: Mapping[str, str]) -> dict[str, str]:
    """Return config keys without those that mean nothing on another host."""
    return {key: value for key, value in config.items() if not _LOCAL.fullmatch(key)}


def _portable(shown: Objects) -> Objects:
    """Return an instance or snapshot as another host may take it.

    Owners in an archive are the instance's own: to LXD that is an empty last idmap.
    """
    for key in ("config", "expanded_config"):
        shown[key] = {**portable(shown[key]), "volatile.last_state.idmap": "[]"}
    return shown


def _profile(profile: Profile) -> Objects:
    return {
        "name": profile.name,
        "description": profile.description,
        "config": dict(profile.config),
        "devices": {name: dict(device) for name, device in profile.devices.items()},
        "used_by": [],
    }
