"""From a backup's description to an instance and its snapshots, as this installation has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from lxpy.backups.index import Index, Object, moment, nested, strings
from lxpy.errors import Failed
from lxpy.instances import architectures
from lxpy.instances.model import Device, Instance, Profile, RootVolume, Snapshot, root_device
from lxpy.instances.names import check_snapshot_name
from lxpy.services.backups.described import portable
from lxpy.services.instances import host

#: keys of which two instances must not have the same value
_UNIQUE = ("volatile.uuid", "volatile.cloud-init.instance-id")


@dataclass(frozen=True, slots=True)
class Described:
    """An instance as a backup describes it; profiles are names."""

    instance: Instance
    profiles: tuple[str, ...]
    snapshots: tuple[Snapshot, ...]


def described(index: Index, project: str, name: str) -> Described:
    """Return what a backup describes, under a name it is to have here.

    Raises Failed for what is missing or of a wrong type, BadRequest for a snapshot's name.
    """
    found = index.config.get("container") or index.config.get("instance")
    if not isinstance(found, dict):
        raise Failed("Invalid backup: it does not describe its instance")
    instance = Instance(
        id=0,
        project=project,
        name=name,
        architecture=architecture(str(found.get("architecture") or "")),
        config=portable(strings(found.get("config"), "the instance's config")),
        devices=nested(found.get("devices"), "the instance's devices"),
        expanded_config={},
        expanded_devices={},
        profiles=(),
        created_at=moment(found.get("created_at")) or datetime.now(UTC),
        last_used_at=moment(found.get("last_used_at")),
        ephemeral=found.get("ephemeral") is True,
        description=str(found.get("description") or ""),
        volume=written(index.config.get("volume")),
    )
    on_volumes = {
        str(each.get("name")): each for each in _listed(index.config.get("volume_snapshots"))
    }
    by_name = {str(each.get("name")): each for each in _listed(index.config.get("snapshots"))}
    snapshots = []
    for each in index.snapshots:
        if each not in by_name:
            raise Failed(f'Invalid backup: it does not describe its snapshot "{each}"')
        snapshots.append(snapshot(check_snapshot_name(each), by_name[each], on_volumes.get(each)))
    return Described(instance, _names(found.get("profiles")), tuple(snapshots))


def completed(instance: Instance, others: Iterable[Instance], *, renamed: bool) -> Instance:
    """Return the instance without those keys that another one has the same value of.

    A copy beside its original gets addresses and ids of its own.
    """
    taken = {
        (key, value) for other in others for key, value in other.config.items() if _is_unique(key)
    }
    taken_addresses = {value for key, value in taken if key.endswith(".hwaddr")}
    config = {
        key: value
        for key, value in instance.config.items()
        if (key, value) not in taken
        and not (key.endswith(".hwaddr") and value in taken_addresses)
        and not (renamed and key == "volatile.cloud-init.instance-id")
    }
    return replace(instance, config=config)


def kept(described: Mapping[str, str], made: Mapping[str, str], *, renamed: bool) -> dict[str, str]:
    """Return the config of a new instance with the ids that it had before.

    Its templates are due as they were; a new name is a reason to render them again.
    """
    config = {**made, **{key: described[key] for key in _UNIQUE if key in described}}
    template = described.get("volatile.apply_template") or ("copy" if renamed else "")
    if template:
        return {**config, "volatile.apply_template": template}
    config.pop("volatile.apply_template", None)
    return config


def on_pool(instance: Instance, profiles: list[Profile], pool: str) -> Instance:
    """Return the instance, expanded, with its root disk on a pool."""
    expanded = instance.changed(profiles)
    roots = [
        (name, device)
        for name, device in expanded.expanded_devices.items()
        if device.get("type") == "disk" and device.get("path") == "/"
    ]
    if not roots:
        added: dict[str, Device] = {"root": {"type": "disk", "path": "/", "pool": pool}}
    else:
        name, device = root_device(expanded.expanded_devices)
        if device.get("pool") == pool:
            return expanded
        added = {name: {**device, "pool": pool}}
    return instance.changed(profiles, devices={**instance.devices, **added})


def snapshot_on_pool(snapshot: Snapshot, pool: str) -> Snapshot:
    """Return a snapshot with its root disk on the pool that its instance is on."""
    for name, device in snapshot.expanded_devices.items():
        is_root = device.get("type") == "disk" and device.get("path") == "/"
        if is_root and device.get("pool") != pool:
            devices = {**snapshot.devices, name: {**device, "pool": pool}}
            return replace(snapshot, devices=devices)
    return snapshot


def _is_unique(key: str) -> bool:
    return key in _UNIQUE or (key.startswith("volatile.") and key.endswith(".hwaddr"))


def architecture(name: str) -> str:
    """Return LXD's name of an architecture that runs here, "" is the host's. Raises Failed."""
    found = architectures.lxd_name(name) if name else host.architecture()
    if found not in architectures.runnable(host.architecture()):
        raise Failed(
            f"Requested architecture isn't supported by this host: the backup is of a system for "
            f"{found}, the host is {host.architecture()}"
        )
    return found


def written(volume: object) -> RootVolume:
    """Return what is written on the volume of an instance or snapshot, as a backup describes it.

    Raises Failed for what is of a wrong type.
    """
    if not isinstance(volume, dict):
        return RootVolume()
    config = strings(volume.get("config"), "the config of a volume")
    return RootVolume.of(config, str(volume.get("description") or ""))


def snapshot(name: str, found: Object, volume: object = None) -> Snapshot:
    """Return a snapshot as a backup describes it, and its volume.

    Raises Failed for what is of a wrong type.
    """
    where = f'the config of snapshot "{name}"'
    config = portable(strings(found.get("config"), where))
    devices = nested(found.get("devices"), where)
    expanded = portable(strings(found.get("expanded_config"), where))
    expanded_devices = nested(found.get("expanded_devices"), where)
    own = found.get("lxpy")
    return Snapshot(
        name=name,
        created_at=moment(found.get("created_at")) or datetime.now(UTC),
        config=config,
        devices=devices,
        profiles=_names(found.get("profiles")),
        inherited_config={k: v for k, v in expanded.items() if k not in config},
        inherited_devices={k: v for k, v in expanded_devices.items() if k not in devices},
        expires_at=moment(found.get("expires_at")),
        last_used_at=moment(found.get("last_used_at")),
        ephemeral=found.get("ephemeral") is True,
        description=str(found.get("description") or ""),
        scheduled=isinstance(own, dict) and own.get("scheduled") is True,
        volume=written(volume),
    )


def _names(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Failed("Invalid backup: a list of profiles is none")
    return tuple(value)


def _listed(value: object) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise Failed("Invalid backup: its list of snapshots is none")
    return value
