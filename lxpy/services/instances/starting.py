"""From an instance to the spec of its next start: storage, ids, devices, files, limits."""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from lxpy import storage
from lxpy.errors import Failed, Forbidden, LxpyError
from lxpy.images import kept, metadata
from lxpy.instances import devices, idmaps, lxcconf, templates
from lxpy.instances.devices import disk
from lxpy.instances.devices.disk import VolumeSource, missing_source
from lxpy.instances.devices.nic import NicPlan
from lxpy.instances.devices.plans import Needs, Nodes, volatile_config
from lxpy.instances.devices.unix import HostNode
from lxpy.instances.idmaps import IdMap
from lxpy.instances.limits import Host
from lxpy.instances.model import Instance
from lxpy.instances.spec import Parts, Paths, build_spec
from lxpy.instances.templates import Trigger
from lxpy.programs import run
from lxpy.runtime.spec import Directory, Disk, FileWrite, IoLimit, Overlay, Spec
from lxpy.runtime.steps import views
from lxpy.services.directories import Directories
from lxpy.services.instances.logs import CONFIG
from lxpy.services.instances.store import InstanceStore
from lxpy.services.locks import Locks
from lxpy.services.networks.networks import Networks
from lxpy.services.networks.translations import Translations
from lxpy.services.projects.allowances import Allowances
from lxpy.services.server.hardware.nodes import Scanner
from lxpy.services.storage.disks import HOLDER, Disks
from lxpy.services.storage.pools import Pools
from lxpy.storage import Layers, Rootfs, Volume, blockdev
from lxpy.threads import in_thread
from lxpy.units import is_false

_log = structlog.get_logger()
#: of how many images and instances the templates are kept in memory
_KNOWN = 1024
#: triggers that wait for the next start
_DEFERRED: dict[str, Trigger] = {"create": "create", "copy": "copy", "rename": "rename"}


@dataclass(frozen=True, slots=True)
class Prepared:
    """One start: the instance with its volatile keys, what to run, the nics to attach."""

    instance: Instance
    spec: Spec
    nics: tuple[NicPlan, ...]


class Starter:
    """Prepares starts. `host` tells what the host has now."""

    def __init__(
        self,
        directories: Directories,
        store: InstanceStore,
        locks: Locks,
        pools: Pools,
        disks: Disks,
        networks: Networks,
        allowances: Allowances,
        host: Callable[[], Host],
    ) -> None:
        self._directories = directories
        self._store = store
        self._locks = locks
        self._pools = pools
        self._disks = disks
        self._networks = networks
        self._allowances = allowances
        self._host = host
        #: waits until an instance's files can be mounted
        self.on_prepare: Callable[[Instance], Awaitable[None]] | None = None
        #: hears that a running instance has got other devices
        self.on_devices: Callable[[], None] = _nothing
        self._translations = Translations(directories.cgroup, networks)
        self._ids = idmaps.read_pool()
        self._templates: dict[tuple[str, int], tuple[metadata.Template, ...]] = {}

    async def prepare(self, instance: Instance, cpus: str | None) -> Prepared:
        """Return what to start; `cpus` is the set that balancing has found.

        The instance holds its volumes from now on, see `release`. Raises LxpyError when the
        instance cannot start as it is configured.
        """
        await load_modules(instance)
        if self.on_prepare is not None:
            await self.on_prepare(instance)
        instance = await self._settle(instance)
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        volume = volume_of(instance)
        await self._pools.storage.hold(pool, volume, holder(instance))
        rootfs = await self._pools.storage.rootfs(pool, volume)
        await self._pools.storage.check_writable(pool, rootfs)
        parents = await self.confine(instance.project, instance.expanded_devices)
        plan = devices.plan(
            instance.config,
            instance.expanded_devices,
            *await self.look_up(instance, instance.expanded_devices),
            parents,
        )
        await in_thread(check_sources, instance.expanded_devices)
        await self._networks.validate_start(instance, plan.nics)
        await self._translations.apply(instance)
        files = await self._files(instance, await self._pools.storage.metadata(pool, volume))
        idmap = _recorded(instance)
        io = await self.io_limits(instance)
        parts = Parts(_rootfs(rootfs), idmap, plan, files, cpus, io)
        spec = build_spec(instance, parts, self._host(), self._paths(instance))
        await in_thread(_write_config, self._directories.logs(instance.unique_name), spec)
        return Prepared(instance, spec, plan.nics)

    async def hold(self, instance: Instance) -> None:
        """Have a running instance hold its volumes, after a restart of the daemon."""
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        await self._pools.storage.hold(pool, volume_of(instance), holder(instance))
        await self._disks.hold(holder(instance), instance.project, instance.expanded_devices)
        await self._translations.apply(instance)

    async def release(self, instance: Instance) -> None:
        """Let go of what an instance that does not run any more held."""
        try:
            await self._translations.remove(instance.unique_name)
        except LxpyError as error:
            _log.warning("proxies not cleaned up", instance=instance.name, error=str(error))
        await self._disks.release(holder(instance))
        await self._pools.storage.release(holder(instance))

    async def translate(self, instance: Instance) -> None:
        """Have the firewall do what a running instance's proxies ask for. Raises LxpyError."""
        await self._translations.apply(instance)
        self._translations.connected(instance)

    def connected(self, instance: Instance) -> None:
        """Hear that the nics of an instance that starts are on their networks."""
        self._translations.connected(instance)
        self.on_devices()

    async def sweep(self) -> None:
        """Remove what instances have left that ended while no daemon ran."""
        await self._translations.sweep()

    async def check(self, project: str, given: Mapping[str, Mapping[str, str]]) -> None:
        """Raise LxpyError when what disks among some devices show does not exist."""
        await in_thread(check_sources, given)
        await self._disks.check(project, given)

    async def settle(self, instance: Instance) -> None:
        """Let go of the custom volumes that a running instance does not show any more."""
        await self._disks.settle(holder(instance), instance.project, instance.expanded_devices)
        self.on_devices()

    async def look_up(
        self, instance: Instance, given: Mapping[str, Mapping[str, str]]
    ) -> tuple[dict[str, VolumeSource], Nodes]:
        """Find the custom volumes and host devices that some of an instance's devices need.

        The instance holds the volumes from now on; what does not exist is left out.
        """
        volumes = await self._disks.hold(holder(instance), instance.project, given)
        return volumes, await in_thread(_host_nodes, devices.needs(given))

    async def confine(self, project: str, given: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """Return what the disks among some devices must not lead out of. Raises Forbidden."""
        parents = self._allowances.disk_parents(project, given)
        await in_thread(check_links, given, parents)
        return parents

    async def io_limits(self, instance: Instance) -> tuple[IoLimit, ...]:
        """Return what the disks of an instance, which it holds, may do. Raises Failed."""
        asked = {
            name: given
            for name, given in instance.expanded_devices.items()
            if disk.is_limited(given)
        }
        if not asked:
            return ()
        volumes = await self._disks.hold(holder(instance), instance.project, asked)
        found = []
        for name, given in asked.items():
            path = given.get("source", "")
            if disk.is_root(given):
                pool = await self._pools.pool(given["pool"])
                rootfs = await self._pools.storage.rootfs(pool, volume_of(instance))
                path = (rootfs.root or "") if isinstance(rootfs, Layers) else rootfs.path
            elif name in volumes:
                shown = volumes[name]
                node = shown.node
                path = shown.path or (f"/dev/block/{node.major}:{node.minor}" if node else "")
            if os.path.exists(path):
                found.append((await in_thread(blockdev.below, name, path), given))
        return disk.io_limits(found)

    async def claim_ids(self, instance: Instance) -> Instance:
        """Return the instance with the ids of its next start, not yet stored.

        The caller holds the lock ("idmap",) until it is stored. Raises Unavailable, InvalidConfig.
        """
        others = (
            idmaps.held(each.config) for each in self._store.listed() if each.id != instance.id
        )
        taken = [each for each in others if each is not None]
        idmap = idmaps.choose(instance.expanded_config, instance.config, taken, self._ids)
        changes = idmaps.volatile(idmap)
        if all(instance.config.get(key) == value for key, value in changes.items()):
            return instance
        return with_config(instance, {**instance.config, **changes})

    async def _settle(self, instance: Instance) -> Instance:
        """Store the volatile keys that a start needs: ids, and addresses of new nics."""
        config = volatile_config(
            instance.config, instance.expanded_devices, self._networks.make_hwaddr
        )
        async with self._locks.hold("idmap"):
            settled = await self.claim_ids(with_config(instance, config))
            if settled.config == instance.config:
                return instance
            return await self._store.save(settled)

    async def _files(self, instance: Instance, directory: Path) -> tuple[FileWrite, ...]:
        """Render the image's templates that are due. Raises Failed."""
        known = await in_thread(self._read_templates, directory)
        pending = _DEFERRED.get(instance.config.get("volatile.apply_template", ""))
        triggers: list[Trigger] = ["start"] if pending is None else [pending, "start"]
        wanted = templates.wanted(known, triggers)
        sources = await in_thread(_read_sources, directory, wanted)
        return await in_thread(templates.render, known, sources, triggers, instance)

    def _read_templates(self, directory: Path) -> tuple[metadata.Template, ...]:
        try:
            key = (str(directory), (directory / kept.FILE).lstat().st_mtime_ns)
        except FileNotFoundError:
            return ()
        if key not in self._templates:
            if len(self._templates) >= _KNOWN:
                self._templates.clear()
            text = _decoded(kept.FILE, kept.read(directory, kept.FILE) or b"{}")
            self._templates[key] = metadata.kept(text).templates
        return self._templates[key]

    @property
    def guest_api(self) -> Disk:
        """What shows /dev/lxd in an instance that runs."""
        return Disk(**views.guest_api(str(self._directories.guest_api)))

    def _paths(self, instance: Instance) -> Paths:
        logs = self._directories.logs(instance.unique_name)
        return Paths(
            log=str(logs / "lxc.log"),
            console_log=str(logs / "console.log"),
            guest_api=str(self._directories.guest_api),
        )


def _nothing() -> None:
    """Tell nobody."""


def holder(instance: Instance) -> str:
    """Return the name by which a running instance holds volumes."""
    return f"{HOLDER}{instance.unique_name}"


def volume_of(instance: Instance) -> Volume:
    """Return the volume that holds an instance's files."""
    size = instance.root_device[1].get("size", "")
    config = {"size": size} if size else {}
    return Volume(instance.name, storage.VolumeType.CONTAINER, instance.project, config)


def with_config(instance: Instance, config: dict[str, str]) -> Instance:
    """Return the instance with other volatile keys: what profiles say stays as it is."""
    gone = instance.config.keys() - config.keys()
    expanded = {k: v for k, v in instance.expanded_config.items() if k not in gone}
    return replace(instance, config=config, expanded_config={**expanded, **config})


def _rootfs(found: Rootfs) -> Overlay | Directory:
    if isinstance(found, Layers):
        assert found.root is not None, "an instance's own volume takes writes"
        return Overlay(found.lower, found.root)
    return Directory(found.path)


def _recorded(instance: Instance) -> IdMap:
    """Return the ids that `_settle` has stored."""
    entries = idmaps.from_json(instance.config.get("volatile.idmap.next", "[]"))
    base = int(instance.config.get("volatile.idmap.base", "0"))
    return IdMap(base, sum(each.size for each in entries if each.kind == "u"), entries)


def check_sources(expanded: Mapping[str, Mapping[str, str]]) -> None:
    """Raise Failed when a directory or file of the host that a disk needs does not exist."""
    for name, given in expanded.items():
        if given.get("type") != "disk" or given.get("pool") or is_false(given.get("required")):
            continue
        if not os.path.lexists(given["source"]):
            raise missing_source(name, given["source"])


def check_links(given: Mapping[str, Mapping[str, str]], parents: Mapping[str, str]) -> None:
    """Raise Forbidden when a disk's source is a link out of its parent.

    That is for devices with a file system, and to tell early: mounts are confined by the kernel.
    """
    for name, parent in parents.items():
        source = given[name]["source"]
        if not Path(os.path.realpath(source)).is_relative_to(os.path.realpath(parent)):
            raise Forbidden(
                f'Failed to start device "{name}": Source path "{source}" resolves outside of '
                f'restricted parent source path "{parent}"'
            )


def _host_nodes(needs: Needs) -> Nodes:
    found: dict[str, HostNode] = {}
    for device, path in needs.paths.items():
        try:
            status = os.stat(path)
        except OSError:
            continue
        major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        if stat.S_ISCHR(status.st_mode):
            found[device] = HostNode("c", major, minor)
        elif stat.S_ISBLK(status.st_mode):
            found[device] = HostNode("b", major, minor)
    return Nodes(found, tuple(Scanner().scan()) if needs.hardware else ())


def _read_sources(directory: Path, names: list[str]) -> dict[str, str]:
    """Return the texts of templates. Raises Failed."""
    found = {name: kept.read(directory, f"{kept.TEMPLATES}/{name}") for name in names}
    return {name: _decoded(name, data) for name, data in found.items() if data is not None}


def _write_config(logs: Path, spec: Spec) -> None:
    """Write down what is started, beside the logs; a full disk is no reason not to start."""
    logs.mkdir(0o700, parents=True, exist_ok=True)
    with suppress(OSError):
        (logs / CONFIG).write_text(lxcconf.describe(spec), errors="surrogateescape")


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Failed(f'The image\'s "{name}" is no text: {error}') from error


async def load_modules(instance: Instance) -> None:
    """Load the kernel modules that an instance wants and the kernel has not. Raises Failed."""
    modules = instance.expanded_config.get("linux.kernel_modules", "")
    for name in filter(None, (word.strip() for word in modules.split(","))):
        if not os.path.exists(f"/sys/module/{name.replace('-', '_')}"):
            await run("modprobe", "-b", name)
