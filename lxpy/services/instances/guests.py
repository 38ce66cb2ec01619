"""What instances may ask at /dev/lxd, and what they are told there.

Source: LXD docs, "Communication between instance and host".
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from contextlib import suppress

from lxpy.api.guest import ConfigChange, DeviceChange, Guest
from lxpy.errors import BadRequest, Forbidden, NotFound
from lxpy.events.bus import Bus, Listener
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances import idmaps
from lxpy.instances.cloudinit import INSTANCE_ID
from lxpy.instances.expand import changed_keys, device_changes
from lxpy.instances.keys import READY
from lxpy.instances.model import Instance, unique_name
from lxpy.kernel.peers import Peer
from lxpy.runtime.callers import container_of
from lxpy.runtime.container import Runtime
from lxpy.services.directories import Directories
from lxpy.services.images.images import Exported, Images, Viewer
from lxpy.services.instances.store import InstanceStore, Key
from lxpy.services.locks import Locks
from lxpy.units import is_true

EVENTS = ("config", "device")
_SHOWN = ("user.", "cloud-init.")


class Guests:
    """The side of the daemon that instances see; each is named by project and name."""

    def __init__(
        self,
        directories: Directories,
        store: InstanceStore,
        locks: Locks,
        runtime: Runtime,
        images: Images,
        lifecycle: Lifecycle,
    ) -> None:
        self._cgroup = directories.cgroup
        self._events = Bus()
        self._store = store
        self._locks = locks
        self._runtime = runtime
        self._images = images
        self._lifecycle = lifecycle

    def identify(self, sock: socket.socket) -> tuple[Key, bool] | None:
        """Tell which instance a connection comes from, and whether from its root; None of none.

        The kernel says which process and user it was that connected. Users of an instance are its
        own, so that not even a pid that is used again makes one instance another.
        """
        with suppress(OSError), Peer(sock) as peer:
            unique = container_of(peer.pid, self._cgroup)
            instance = self._store.by_unique_name(unique)
            if instance is None or self._runtime.held(unique) is None or not peer.lives():
                return None
            return (instance.project, instance.name), peer.uid == _root_of(instance)
        return None

    def check(self, key: Key) -> None:
        """Raise NotFound, or Forbidden when an instance may not ask at all."""
        if not self._store.get(*key).flag("security.devlxd", default=True):
            raise Forbidden("not authorized")

    def show(self, key: Key) -> Guest:
        """Return what an instance is told of itself."""
        is_ready = is_true(self._store.get(*key).config.get(READY))
        return Guest(state="Ready" if is_ready else "Started")

    async def change(self, key: Key, state: str) -> None:
        """Note that an instance is ready, or not yet. Raises BadRequest."""
        if state not in ("Started", "Ready"):
            raise BadRequest(f'Invalid instance state "{state}"')
        # Or a change of its config under way, or its start, would undo this.
        async with self._locks.hold("instance", *key):
            instance = self._store.get(*key)
            await self._store.note(instance, {READY: str(state == "Ready").lower()})
        if state == "Ready":
            path = f"/1.0/instances/{instance.name}"
            self._lifecycle.emit("instance-ready", path, instance.project)

    def keys(self, key: Key) -> list[str]:
        """Return the config keys that an instance may read."""
        config = self._store.get(*key).expanded_config
        return sorted(name for name in config if name.startswith(_SHOWN))

    def value(self, key: Key, name: str) -> str:
        """Return the value of a config key. Raises Forbidden, NotFound."""
        if not name.startswith(_SHOWN):
            raise Forbidden("not authorized")
        value = self._store.get(*key).expanded_config.get(name)
        if value is None:
            raise NotFound("not found")
        return value

    def meta_data(self, key: Key) -> str:
        """Return what cloud-init takes as its meta-data."""
        instance = self._store.get(*key)
        identity = instance.config.get(INSTANCE_ID) or instance.name
        own = instance.expanded_config.get("user.meta-data", "")
        return f"#cloud-config\ninstance-id: {identity}\nlocal-hostname: {instance.name}\n{own}"

    def devices(self, key: Key) -> dict[str, dict[str, str]]:
        """Return an instance's devices; nics with their addresses."""
        instance = self._store.get(*key)
        found = {name: dict(each) for name, each in instance.expanded_devices.items()}
        for name, device in found.items():
            address = instance.config.get(f"volatile.{name}.hwaddr")
            if device.get("type") == "nic" and address:
                device.setdefault("hwaddr", address)
        return found

    async def image(self, key: Key, prefix: str) -> Exported:
        """Return the files of an image that everyone may have. Raises Forbidden, NotFound."""
        instance = self._store.get(*key)
        if not instance.flag("security.devlxd.images"):
            raise Forbidden("not authorized")
        found, _ = await self._images.get(instance.project, prefix, Viewer())
        if not found.public and not found.cached:
            raise NotFound("Image not found")
        return await self._images.export(instance.project, found.fingerprint, Viewer())

    def listen(self, key: Key, types: Collection[str]) -> Listener:
        """Hear how an instance is changed; the caller closes the listener."""
        return self._events.listen(types, unique_name(*key))

    def close(self) -> None:
        """End what listens."""
        self._events.close()

    def changed(self, old: Instance, new: Instance, kept: frozenset[str]) -> None:
        """Tell an instance how it was changed; `kept` are changed devices that stay plugged."""
        before, after = old.expanded_config, new.expanded_config
        for key in sorted(changed_keys(before, after)):
            if key.startswith(_SHOWN):
                change = ConfigChange(
                    key=key, old_value=before.get(key, ""), value=after.get(key, "")
                )
                self._events.send("config", change, new.unique_name)
        added, removed, changed = device_changes(old.expanded_devices, new.expanded_devices)
        replaced = [name for name in changed if name not in kept]
        for name in [*removed, *replaced]:
            self._tell("removed", old, name)
        for name in [*added, *replaced]:
            self._tell("added", new, name)
        for name in sorted(kept):
            self._tell("updated", new, name)

    def _tell(self, action: str, instance: Instance, name: str) -> None:
        config = dict(instance.expanded_devices[name])
        change = DeviceChange(action=action, name=name, config=config)  # type: ignore[arg-type]
        self._events.send("device", change, instance.unique_name)


def _root_of(instance: Instance) -> int:
    """Return the user on the host that is an instance's root."""
    entries = idmaps.from_json(instance.config.get("volatile.idmap.current") or "[]")
    return next((each.outside for each in entries if each.kind == "u" and not each.inside), 0)
