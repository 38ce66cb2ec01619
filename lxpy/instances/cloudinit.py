"""When cloud-init is to take an instance for a new one: it goes by its instance-id.

Source: cloud-init's documentation, "First boot determination"; what LXD 5.0 does.
"""

from __future__ import annotations

from uuid import uuid4

from lxpy.instances.expand import changed_keys
from lxpy.instances.model import Instance

INSTANCE_ID = "volatile.cloud-init.instance-id"
_SEED = frozenset(
    f"{prefix}.{name}"
    for prefix in ("cloud-init", "user")
    for name in ("network-config", "user-data", "vendor-data")
)


def new_id() -> str:
    """Return an id that no instance has had."""
    return str(uuid4())


def begins_anew(old: Instance, new: Instance) -> bool:
    """Whether cloud-init shall run again: its data, or names of network cards, are others."""
    if _SEED.intersection(changed_keys(old.expanded_config, new.expanded_config)):
        return True
    return _cards(old) != _cards(new)


def _cards(instance: Instance) -> set[str]:
    return {
        device.get("name") or name
        for name, device in instance.expanded_devices.items()
        if device.get("type") == "nic"
    }
