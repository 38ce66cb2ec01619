"""Starting, stopping, freezing; and what becomes of instances that end by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from lxpy.api.instances import InstanceStatePut
from lxpy.errors import BadRequest, Failed, Forbidden, LxpyError
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.boot import not_ready
from lxpy.instances.limits import Host, build_limits
from lxpy.instances.model import Instance
from lxpy.instances.pinning import balance
from lxpy.operations.registry import Operation, Registry
from lxpy.runtime.container import Exit, Runtime, StartFailed, SupervisorLost
from lxpy.services.instances.starting import Starter
from lxpy.services.instances.store import InstanceStore, Key
from lxpy.services.locks import Locks
from lxpy.services.memory.checkpoints import Checkpoints
from lxpy.services.networks.networks import Networks

#: what a client may ask for, and how an operation calls it
_ACTIONS = {"start": "Starting", "stop": "Stopping", "restart": "Restarting",
            "freeze": "Freezing", "unfreeze": "Unfreezing"}  # fmt: skip
_log = structlog.get_logger()

Step = Callable[[Instance], Awaitable[None]]


class Power:
    """The states of instances and the ways from one to the other."""

    def __init__(
        self,
        store: InstanceStore,
        locks: Locks,
        runtime: Runtime,
        starter: Starter,
        networks: Networks,
        checkpoints: Checkpoints,
        registry: Registry,
        lifecycle: Lifecycle,
        host: Callable[[], Host],
    ) -> None:
        self.frozen: set[str] = set()
        self.on_ephemeral_end: Step = _nothing
        self.before_start: Step = _nothing
        self._store = store
        self._locks = locks
        self._runtime = runtime
        self._starter = starter
        self._networks = networks
        self._checkpoints = checkpoints
        self._registry = registry
        self._lifecycle = lifecycle
        self._host = host
        self._expected: dict[str, asyncio.Future[Exit]] = {}
        self._stopping: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        runtime.on_exit = self._on_exit

    # What clients ask for

    def change(self, project: str, name: str, wish: InstanceStatePut) -> Operation:
        """Start the operation that `wish` names. Raises NotFound, BadRequest."""
        instance = self._store.get(project, name)
        if wish.stateful and wish.action not in ("start", "stop"):
            raise BadRequest(f'"stateful" is for start and stop, not for {wish.action}')
        if wish.action not in _ACTIONS:
            raise BadRequest(f'Unknown state action "{wish.action}": use {", ".join(_ACTIONS)}')

        async def work(_: Operation) -> None:
            await self.act(project, name, wish)

        return self._registry.spawn(
            f"{_ACTIONS[wish.action]} instance",
            work,
            project=project,
            resources={"instances": [f"/1.0/instances/{instance.name}"]},
        )

    async def act(self, project: str, name: str, wish: InstanceStatePut) -> None:
        """Do what `wish` says. Raises LxpyError."""
        if wish.action == "start":
            await self.start(project, name, stateful=wish.stateful)
        elif wish.action == "stop" and wish.stateful:
            await self.suspend(project, name)
        elif wish.action == "stop":
            await self.stop(project, name, force=_forced(wish), timeout_s=_timeout(wish))
        elif wish.action == "restart":
            await self.restart(project, name, force=_forced(wish), timeout_s=_timeout(wish))
        elif wish.action == "freeze":
            await self.freeze(project, name)
        else:
            await self.unfreeze(project, name)

    async def start(self, project: str, name: str, *, stateful: bool | None = None) -> None:
        """Start a stopped instance; a frozen one goes on. Raises LxpyError, nothing left behind.

        One that was stopped with its state goes on from there, unless `stateful` is False: then
        its state is thrown away.
        """
        async with self._locks.hold("instance", project, name):
            instance = self._store.get(project, name)
            if self.is_running(instance):
                if instance.unique_name in self.frozen:
                    await self._thaw(instance)
                    return
                raise BadRequest("The instance is already running")
            if instance.flag("security.protection.start"):
                raise Forbidden(f'Instance "{name}" is protected from being started')
            if stateful and not instance.stateful:
                raise BadRequest("The instance has no existing state to restore")
            await self.before_start(instance)
            await self._start(instance, saved=instance.stateful and stateful is not False)
            if instance.stateful:
                await self._without_state(instance)
        self._tell("instance-started", instance)

    async def suspend(self, project: str, name: str) -> None:
        """Stop an instance such that its next start goes on where it was. Raises LxpyError."""
        async with self._locks.hold("instance", project, name):
            instance = self._store.get(project, name)
            exit = await self._stop(instance, force=True, timeout_s=None, saves=True)
            instance = self._store.get(project, name)
            await self._store.save(replace(instance, stateful=True))
            await self._ended(self._store.get(project, name), exit, asked=True)

    async def revive(
        self, project: str, name: str, before: Callable[[int], Awaitable[None]]
    ) -> None:
        """Start an instance from a state that was put there, its lock held.

        `before(pid)` has its network namespace before it joins networks. Raises LxpyError.
        """
        instance = self._store.get(project, name)
        await self._start(instance, saved=True, before=before)
        await self._without_state(instance)
        self._tell("instance-started", instance)

    async def _without_state(self, instance: Instance) -> None:
        """Forget the state of an instance that has been started."""
        current = self._store.get(instance.project, instance.name)
        await self._store.save(replace(current, stateful=False))
        await self._checkpoints.remove(instance.unique_name)

    async def agree_on_states(self) -> None:
        """Make good what a daemon that died while it dumped or restored has not noted."""
        for instance in self._store.listed():
            running = self.is_running(instance)
            await self._checkpoints.settle(instance.unique_name, is_running=running)
            if running:
                if instance.stateful:
                    await self._without_state(instance)
            elif instance.stateful != await self._checkpoints.exists(instance.unique_name):
                await self._store.save(replace(instance, stateful=not instance.stateful))

    async def stop(self, project: str, name: str, *, force: bool, timeout_s: float | None) -> None:
        """Stop an instance, by its own init or by force; an ephemeral one is gone then.

        A forced stop does not wait for a clean one that is under way. Raises LxpyError.
        """
        if force and (project, name) in self._stopping:
            await self._kill(self._store.get(project, name))
            return
        async with self._locks.hold("instance", project, name):
            instance = self._store.get(project, name)
            exit = await self._stop(instance, force=force, timeout_s=timeout_s)
            await self._ended(instance, exit, asked=True)

    async def shut_down(
        self, project: str, name: str, *, force: bool, timeout_s: float | None
    ) -> None:
        """Stop an instance because its host or daemon goes down: it starts again with them."""
        async with self._locks.hold("instance", project, name):
            instance = self._store.get(project, name)
            force = force or instance.unique_name in self.frozen
            exit = await self._stop(instance, force=force, timeout_s=timeout_s, returns=True)
            await self._left(instance)
            if instance.ephemeral:
                await self._ended(instance, exit, asked=True)
        self._tell("instance-stopped", instance)

    async def restart(
        self, project: str, name: str, *, force: bool, timeout_s: float | None
    ) -> None:
        """Stop and start; what is ephemeral stays. Raises LxpyError."""
        async with self._locks.hold("instance", project, name):
            instance = self._store.get(project, name)
            await self._stop(instance, force=force, timeout_s=timeout_s, returns=True)
            await self._left(instance)
            await self.before_start(instance)
            await self._start(self._store.get(project, name))
        self._tell("instance-restarted", instance)

    async def freeze(self, project: str, name: str) -> None:
        """Stop all of an instance's processes where they are. Raises LxpyError."""
        async with self._locks.hold("instance", project, name):
            instance = self._store.get(project, name)
            if not self.is_running(instance):
                raise BadRequest("The container isn't running")
            if instance.unique_name in self.frozen:
                raise BadRequest("The container is already frozen")
            await self._runtime.freeze(instance.unique_name)
            self.frozen.add(instance.unique_name)
        self._tell("instance-paused", instance)

    async def unfreeze(self, project: str, name: str) -> None:
        """Let a frozen instance go on. Raises LxpyError."""
        async with self._locks.hold("instance", project, name):
            instance = self._store.get(project, name)
            if not self.is_running(instance):
                raise BadRequest("The container isn't running")
            if instance.unique_name not in self.frozen:
                raise BadRequest("The container is already running")
            await self._thaw(instance)

    def is_running(self, instance: Instance) -> bool:
        """Tell whether it runs, frozen or not."""
        return self._runtime.held(instance.unique_name) is not None

    # With the instance's lock held

    @asynccontextmanager
    async def interrupted(
        self, instance: Instance, *, goes_on_from: str = ""
    ) -> AsyncIterator[None]:
        """Have an instance stopped, by force, for the length of a block.

        If it ran, it starts again after that, as the store has it then; in any case it goes on from
        the state of the snapshot `goes_on_from`, if one is given. Raises LxpyError.
        """
        ran = self.is_running(instance)
        if ran:
            if goes_on_from:
                # Or the ends of its processes would end connections that are in the saved state.
                await self._networks.cut(instance)
            await self._stop(instance, force=True, timeout_s=None, returns=True)
            await self._left(instance)
        try:
            yield
        except BaseException:
            if ran:
                await self._try_start(instance)
            raise
        current = self._store.get(instance.project, instance.name)
        if goes_on_from:
            await self._start(current, saved=True, state=goes_on_from)
        elif ran:
            await self._start(current)

    async def _try_start(self, instance: Instance) -> None:
        try:
            await self._start(self._store.get(instance.project, instance.name))
        except LxpyError as error:
            _log.warning("not started again", instance=instance.unique_name, error=str(error))

    async def _start(
        self,
        instance: Instance,
        *,
        saved: bool = False,
        state: str = "",
        before: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """Start it, or, `saved`, restore it from its own state or from that of a snapshot."""
        names: dict[str, str] = {}

        async def network(pid: int) -> None:
            if before is not None:
                await before(pid)
            names.update(await self._networks.attach(prepared.instance, nics, pid))
            self._starter.connected(prepared.instance)

        try:
            prepared = await self._starter.prepare(instance, self._cpus(instance))
            nics, dump = prepared.nics, None
            if saved:
                nics, dump = await self._checkpoints.plan(prepared.instance, nics, state)
            await self._runtime.start(prepared.spec, network, dump)
        except BaseException:
            await self._networks.detach(instance)
            await self._starter.release(instance)
            raise
        changes = {f"volatile.{key}": value for key, value in names.items()}
        await self._store.note(
            prepared.instance,
            {
                **changes,
                "volatile.apply_template": "",
                "volatile.last_state.exit": "",
                "volatile.last_state.power": "RUNNING",
                **({} if saved else not_ready(prepared.instance)),
            },
            last_used_at=datetime.now(UTC),
        )

    async def _stop(
        self,
        instance: Instance,
        *,
        force: bool,
        timeout_s: float | None,
        returns: bool = False,
        saves: bool = False,
    ) -> Exit:
        """Bring it to its end and return that; `saves` its memory first."""
        unique = instance.unique_name
        if not self.is_running(instance):
            raise BadRequest("The instance is already stopped")
        if not force and unique in self.frozen:
            await self._thaw(instance)  # it is to stop by itself
        if not returns:
            # Noted before it happens: should the daemon die, it is not started again.
            await self._store.note(instance, {"volatile.last_state.power": "STOPPED"})
        future = self._expected[unique] = asyncio.get_running_loop().create_future()
        key = (instance.project, instance.name)
        self._stopping.add(key)
        try:
            if saves:
                await self._save(instance)
            elif force:
                await self._kill(instance)
            else:
                await self._shut_down(instance, timeout_s)
            exit: Exit = await future
            self._runtime.acknowledge(exit)
            return exit
        finally:
            self._stopping.discard(key)
            if self._expected.get(unique) is future:
                del self._expected[unique]

    async def _shut_down(self, instance: Instance, timeout_s: float | None) -> None:
        try:
            await self._runtime.shutdown_init(instance.unique_name)
        except StartFailed:
            return  # it has ended by itself; its end is on the way
        if await self._runtime.wait(instance.unique_name, timeout_s):
            return
        await self._store.note(instance, {"volatile.last_state.power": "RUNNING"})
        raise Failed(
            f'Failed shutting down instance, status is "Running": it did not stop within '
            f"{timeout_s:g} s; wait longer (--timeout), or use force"
        )

    async def _save(self, instance: Instance) -> None:
        """Dump its memory; it ends with that, unless that fails."""
        try:
            place = self._checkpoints.place(instance.unique_name)
            async with self._checkpoints.dumped(instance, place, keeps_running=False):
                pass  # nothing else is to be saved while it stands still
        except BaseException:
            await self._store.note(instance, {"volatile.last_state.power": "RUNNING"})
            raise

    async def _kill(self, instance: Instance) -> None:
        while self.is_running(instance):
            try:
                await self._runtime.kill(instance.unique_name)
            except StartFailed as error:
                if self.is_running(instance):
                    raise Failed(f"Failed to stop {instance.name}: {error}") from error
            except SupervisorLost:
                await asyncio.sleep(0.05)  # another one takes over

    async def _thaw(self, instance: Instance) -> None:
        await self._runtime.thaw(instance.unique_name)
        self.frozen.discard(instance.unique_name)
        self._tell("instance-resumed", instance)

    async def _left(self, instance: Instance) -> None:
        """Clean up what the kernel does not: after every end."""
        self.frozen.discard(instance.unique_name)
        await self._networks.detach(instance)
        await self._starter.release(instance)

    async def _ended(self, instance: Instance, exit: Exit, *, asked: bool) -> None:
        """Note an end for good."""
        await self._left(instance)
        clean = exit.reason in ("poweroff", "exit", "reboot") and exit.text != "killed on request"
        self._tell("instance-shutdown" if clean else "instance-stopped", instance)
        if instance.ephemeral:
            await self.on_ephemeral_end(instance)
            return
        reason = "" if asked else exit.text
        changes = {"volatile.last_state.power": "STOPPED", "volatile.last_state.exit": reason}
        await self._store.note(instance, changes | not_ready(instance))

    # Ends that nobody asked for

    def _on_exit(self, exit: Exit) -> None:
        future = self._expected.get(exit.name)
        if future is not None and not future.done():
            future.set_result(exit)
            return
        self.spawn(self._unexpected(exit))

    async def _unexpected(self, exit: Exit) -> None:
        """An instance has rebooted, powered off, or lost its init."""
        await self._open.wait()
        found = self._store.by_unique_name(exit.name)
        if found is not None:
            async with self._locks.hold("instance", found.project, found.name):
                await self._deal_with(exit)
        self._runtime.acknowledge(exit)

    async def _deal_with(self, exit: Exit) -> None:
        instance = self._store.by_unique_name(exit.name)
        if instance is None or self.is_running(instance):
            return
        _log.info("instance ended", instance=exit.name, reason=exit.reason, text=exit.text)
        if exit.reason != "reboot":
            await self._ended(instance, exit, asked=False)
            return
        await self._left(instance)
        try:
            await self._start(instance)
        except LxpyError as error:
            _log.warning("instance does not come back", instance=exit.name, error=str(error))
            text = f"it rebooted and could not be started again: {error}"
            await self._ended(
                instance, Exit(exit.name, exit.pid, "crash", exit.status, text), asked=False
            )
            return
        self._tell("instance-restarted", instance)

    def spawn(self, work: Awaitable[None]) -> None:
        """Do something in the background, waited for by `settle`."""

        async def guarded() -> None:
            try:
                await work
            except Exception:
                _log.exception("work in the background broke")

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Deal with ends from now on, as networks are there; wait for those known of already."""
        self._open.set()
        while self._tasks:
            await asyncio.wait(self._tasks)

    # Cpus

    def _cpus(self, newcomer: Instance) -> str | None:
        """Return the set of cpus for an instance that is about to start, None for all."""
        running = [
            each
            for each in self._store.listed()
            if self.is_running(each) and each.unique_name != newcomer.unique_name
        ]
        wishes = [
            (each.unique_name, each.expanded_config.get("limits.cpu", ""))
            for each in [*running, newcomer]
        ]
        if not any(wish for _, wish in wishes):
            return None
        return balance(wishes, self._host().cpus).get(newcomer.unique_name)

    async def apply_limits(self, instance: Instance) -> None:
        """Change the limits of a running instance to what its config says. Raises LxpyError."""
        limits = build_limits(
            instance.expanded_config, self._host(), self._cpus(instance),
            await self._starter.io_limits(instance),
        )  # fmt: skip
        try:
            await self._runtime.limits(instance.unique_name, limits)
        except StartFailed as error:
            raise Failed(f"Failed to change the limits of {instance.name}: {error}") from error

    def _tell(self, action: str, instance: Instance) -> None:
        self._lifecycle.emit(action, f"/1.0/instances/{instance.name}", instance.project)


async def _nothing(_: Instance) -> None:
    """Do nothing: an ephemeral instance that has ended stays, one that starts just starts."""


def _forced(wish: InstanceStatePut) -> bool:
    return wish.force or wish.timeout == 0


def _timeout(wish: InstanceStatePut) -> float | None:
    return None if wish.timeout < 0 else float(wish.timeout)
