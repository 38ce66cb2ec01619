"""Whether projects may have what is about to be in them.

Source: LXD docs, "Project configuration".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from lxpy.db import profiles as profile_queries
from lxpy.db import projects as queries
from lxpy.db.engine import Database
from lxpy.errors import Failed, Forbidden
from lxpy.instances import allowed
from lxpy.instances.model import Instance, Profile
from lxpy.services.instances.store import InstanceStore
from lxpy.services.projects.scopes import Scopes
from lxpy.units import is_true


class Allowances:
    """Knows what is in a project, and what may be."""

    def __init__(self, db: Database, scopes: Scopes, store: InstanceStore) -> None:
        self._db = db
        self._scopes = scopes
        self._store = store

    async def contents(self, name: str, changed: Iterable[Instance] = ()) -> allowed.Contents:
        """Return what is in a project, with instances as they become; without the profiles."""
        new = {each.name: each for each in changed}
        kept = [each for each in self._store.listed(name) if each.name not in new]
        async with self._db.read() as session:
            rows = await queries.volumes(session, name)
        sizes = {row.name: row.config.get("size", "") for row in rows}
        return allowed.Contents(name, [*kept, *new.values()], sizes)

    async def check_change(self, name: str, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        """Raise Failed or Forbidden when a project could not keep what it has."""
        found = await self.contents(name)
        async with self._db.read() as session:
            rows = await profile_queries.all_of(session, name)
        profiles = [Profile(row.name, row.config, row.devices) for row in rows]
        allowed.check_change(
            old, new, allowed.Contents(name, found.instances, found.volumes, profiles)
        )

    async def check_instance(self, new: Instance, what: str) -> None:
        """Raise Failed or Forbidden when a project may not have an instance, new or changed.

        `what` is "creation" or "update".
        """
        if not (config := self._scopes.get(new.project).config):
            return
        with _told(f"instance {what}"):
            allowed.check(config, await self.contents(new.project, [new]))

    def check_volatile(
        self, project: str, name: str, old: Mapping[str, str], new: Mapping[str, str]
    ) -> None:
        """Raise Forbidden when a project does not allow to set an instance's volatile keys so."""
        label = f'container "{name}" in project "{project}"'
        allowed.check_volatile(self._scopes.get(project).config, label, old, new)

    async def check_profile(self, owner: str, profile: Profile, users: Iterable[Instance]) -> None:
        """Raise when a project may not have a profile, or another one what its user becomes."""
        by_project: dict[str, list[Instance]] = {owner: []}
        for each in users:
            by_project.setdefault(each.project, []).append(each)
        with _told("profile update"):
            own = allowed.Contents(owner, (), {}, [profile])
            allowed.check_restrictions(self._scopes.get(owner).config, own)
            for name, changed in by_project.items():
                if config := self._scopes.get(name).config:
                    allowed.check(config, await self.contents(name, changed))

    async def check_volume(self, project: str, name: str, size: str, what: str) -> None:
        """Raise Failed when a project may not have a custom volume of that size.

        `what` is "creation" or "update".
        """
        limit = self._scopes.config(project, "limits.disk")
        if not limit:
            return
        found = await self.contents(project)
        new = allowed.Contents(project, found.instances, {**found.volumes, name: size})
        with _told(f"volume {what}"):
            allowed.check({"limits.disk": limit}, new)

    async def check_image(self, project: str, size_bytes: int) -> None:
        """Raise Failed when what a project may still hold has no room for a new image.

        Those that it has do not count.
        """
        limit = self._scopes.config(project, "limits.disk")
        if not limit:
            return
        found = await self.contents(project)
        new = allowed.Contents(project, found.instances, {**found.volumes, "": str(size_bytes)})
        with _told("image creation"):
            allowed.check({"limits.disk": limit}, new)

    def disk_parents(
        self, project: str, devices: Mapping[str, Mapping[str, str]]
    ) -> dict[str, str]:
        """Return, by device, which directory of the host a disk must not lead out of.

        Raises Forbidden for disks that map ids there.
        """
        config = self._scopes.get(project).config
        found = {name: allowed.parent_of(config, given) for name, given in devices.items()}
        return {name: parent for name, parent in found.items() if parent}

    def check_feature(self, name: str, what: str) -> None:
        """Raise Forbidden unless a project may have "snapshots" or "backups"."""
        config = self._scopes.get(name).config
        if is_true(config.get("restricted")) and config.get(f"restricted.{what}") != "allow":
            raise Forbidden(
                f'Project "{name}" doesn\'t allow for {what} creation (restricted.{what})'
            )

    def sees_network(self, project: str, name: str, *, managed: bool) -> bool:
        """Tell whether those in a project may know of a network."""
        return not self._scopes.has(project) or allowed.sees_network(
            self._scopes.get(project).config, name, managed=managed
        )


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except (Failed, Forbidden) as error:
        raise type(error)(f"Failed checking if {what} allowed: {error}") from error
