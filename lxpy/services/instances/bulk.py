"""One wish for all instances of a project."""

from __future__ import annotations

import asyncio

from lxpy.api.envelope import Status
from lxpy.api.instances import InstanceStatePut
from lxpy.errors import BadRequest, Failed, LxpyError
from lxpy.instances.model import Instance
from lxpy.operations.registry import Operation, Registry
from lxpy.services.instances.power import Power
from lxpy.services.instances.store import InstanceStore
from lxpy.services.instances.views import Views

_AT_ONCE = 8
#: the states from which an action leads anywhere
_FROM = {
    "start": (Status.STOPPED, Status.FROZEN),
    "stop": (Status.RUNNING, Status.READY, Status.FROZEN),
    "restart": (Status.RUNNING, Status.READY),
    "freeze": (Status.RUNNING, Status.READY),
    "unfreeze": (Status.FROZEN,),
}


class Bulk:
    """Changes the state of many instances at once."""

    def __init__(
        self, store: InstanceStore, power: Power, views: Views, registry: Registry
    ) -> None:
        self._store = store
        self._power = power
        self._views = views
        self._registry = registry

    def change(self, project: str, wish: InstanceStatePut) -> Operation:
        """Start the operation that changes all that can be. Raises BadRequest."""
        if wish.action not in _FROM:
            raise BadRequest(f'Unknown state action "{wish.action}": use {", ".join(_FROM)}')
        chosen = [
            each
            for each in self._store.listed(project)
            if self._views.status(each) in _FROM[wish.action]
        ]
        failures: list[str] = []
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(instance: Instance) -> None:
            async with room:
                try:
                    await self._power.act(project, instance.name, wish)
                except LxpyError as error:
                    failures.append(f"{instance.name}: {error}")

        async def work(_: Operation) -> None:
            async with asyncio.TaskGroup() as tasks:
                for each in chosen:
                    tasks.create_task(one(each))
            if failures:
                raise Failed(f"Failed to {wish.action} {len(failures)}: " + "; ".join(failures))

        return self._registry.spawn(
            "Updating instances state",
            work,
            project=project,
            resources={"instances": [f"/1.0/instances/{each.name}" for each in chosen]},
        )
