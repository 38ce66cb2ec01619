"""Whether the memory of an instance can be saved, told before it is tried."""

from __future__ import annotations

from lxpy.api import checkpoints as api
from lxpy.errors import BadRequest, NotSupported
from lxpy.instances.syscalls import intercepted
from lxpy.runtime.blockers import Blocker
from lxpy.runtime.container import Runtime, StartFailed
from lxpy.services.instances.store import InstanceStore
from lxpy.services.memory import checkpoints
from lxpy.services.memory.criu import Criu
from lxpy.services.networks.networks import Networks


class Checks:
    """Looks at running instances; nothing stands still for it."""

    def __init__(
        self, store: InstanceStore, runtime: Runtime, criu: Criu, networks: Networks
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._criu = criu
        self._networks = networks

    async def check(self, project: str, name: str) -> api.Check:
        """Return what keeps a dump from succeeding. Raises NotFound, BadRequest if it is stopped.

        What only a dump can find out, such as a message that nobody has read, is not in it.
        """
        instance = self._store.get(project, name)
        try:
            found = await self._runtime.blockers(instance.unique_name)
        except StartFailed as error:
            raise BadRequest("The instance isn't running: its memory is not to be saved") from error
        if not instance.flag("security.live", default=True):
            remedy = "unset security.live and restart the instance"
            found.append(Blocker(0, "", "security.live is false", remedy))
        if calls := intercepted(instance.expanded_config):
            reason = f"calls of {', '.join(calls)} are carried out for it"
            remedy = "unset security.syscalls.intercept.* and restart the instance"
            found.append(Blocker(0, "", reason, remedy))
        for reason, remedy in checkpoints.obstacles(instance, self._networks.unsaved(instance)):
            found.append(Blocker(0, "", reason, remedy))
        tracks = False
        try:
            tracks = await self._criu.tracks()
        except NotSupported as error:
            found.append(Blocker(0, "", str(error), "see lxpy doctor"))
        blockers = [
            api.Blocker(pid=b.pid, command=b.command, reason=b.reason, remedy=b.remedy)
            for b in found
        ]
        return api.Check(possible=not blockers, blockers=blockers, tracks_memory=tracks)
