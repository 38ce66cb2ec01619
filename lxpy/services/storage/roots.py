"""The volumes of instances and of their snapshots: what owners write on them.

Their content and size are the instance's to change. Source: LXD docs, "Storage volumes".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from lxpy.api import storage as api
from lxpy.errors import BadRequest
from lxpy.instances.model import Instance, RootVolume, Snapshot
from lxpy.services.instances.store import InstanceStore
from lxpy.services.locks import Locks
from lxpy.services.storage import views
from lxpy.services.storage.places import Place, given, missing


class RootVolumes:
    """What is written on the volumes of instances; `locked` is held for every change."""

    def __init__(self, store: InstanceStore, locks: Locks) -> None:
        self._store = store
        self._locks = locks

    def locked(self, place: Place) -> AbstractAsyncContextManager[None]:
        """Have nobody else change the instance for the length of a block."""
        return self._locks.hold("instance", place.project, place.name)

    def snapshots(self, place: Place) -> Sequence[Snapshot]:
        """Return the snapshots of an instance's volume, oldest first. Raises NotFound."""
        return self._store.snapshots.of(self._instance(place).id)

    def snapshot(self, place: Place, name: str) -> Snapshot:
        """Return one of them. Raises NotFound."""
        found = self._store.snapshots.find(self._instance(place).id, name)
        if found is None:
            raise missing()
        return found

    def show(self, place: Place, name: str) -> api.VolumeSnapshot:
        """Return one of them as the API shows it. Raises NotFound."""
        return views.of_instance_snapshot(self._instance(place), self.snapshot(place, name))

    async def write(self, place: Place, shown: api.Volume, wish: api.VolumePut) -> bool:
        """Write something else on a volume that looks like `shown`; False when it is the same.

        Raises NotFound, BadRequest for an option that is the instance's.
        """
        config = given(wish.config)
        _check(shown.config, config)
        instance, new = self._instance(place), RootVolume.of(config, wish.description)
        if instance.volume == new:
            return False
        await self._store.save(replace(instance, volume=new))
        return True

    async def write_snapshot(self, place: Place, name: str, description: str) -> None:
        """Give the volume of a snapshot another description. Raises NotFound."""
        found = self.snapshot(place, name)
        new = replace(found.volume, description=description)
        await self._store.snapshots.write_on_volume(found, new)

    def _instance(self, place: Place) -> Instance:
        found = self._store.get(place.project, place.name)
        if views.root_pool(found) != place.pool:
            raise missing()
        return found


def _check(old: Mapping[str, str], new: Mapping[str, str]) -> None:
    for key in sorted({*old, *new}):
        if new.get(key) != old.get(key) and not RootVolume.takes(key):
            where = "its root disk device" if key == "size" else "the instance"
            raise BadRequest(
                f'Instance volume "{key}" property cannot be changed: set it on {where}'
            )
