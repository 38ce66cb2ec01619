"""The composition root: builds database and services, starts and ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import structlog

from lxpy.daemon.guests import GuestListener
from lxpy.daemon.https import Listener
from lxpy.daemon.routes import storage
from lxpy.db.engine import Database
from lxpy.db.reserve import Reserve
from lxpy.errors import Failed, LxpyError
from lxpy.events.bus import Bus
from lxpy.events.lifecycle import Lifecycle
from lxpy.images.store import ImageStore
from lxpy.instances.limits import Host
from lxpy.instances.model import Instance, Profile
from lxpy.operations.registry import Registry
from lxpy.runtime.container import Runtime
from lxpy.services.backups.backups import Backups
from lxpy.services.backups.exports import Exports
from lxpy.services.backups.files import BackupFiles
from lxpy.services.backups.shelf import Shelf
from lxpy.services.directories import Directories
from lxpy.services.files.files import Files
from lxpy.services.images.images import Images
from lxpy.services.instances import host
from lxpy.services.instances.exec import Exec
from lxpy.services.instances.guests import Guests
from lxpy.services.instances.hotplug import Hotplug
from lxpy.services.instances.instances import Instances
from lxpy.services.instances.live import Live
from lxpy.services.instances.lxcfs import Lxcfs
from lxpy.services.instances.power import Power
from lxpy.services.instances.restoring import Restoring
from lxpy.services.instances.starting import Starter
from lxpy.services.instances.startup import Startup
from lxpy.services.instances.store import InstanceStore
from lxpy.services.instances.updates import Updates
from lxpy.services.instances.views import Views
from lxpy.services.journal import Journal
from lxpy.services.locks import Locks
from lxpy.services.memory.checkpoints import Checkpoints
from lxpy.services.memory.criu import Criu
from lxpy.services.migration.staging import Staging
from lxpy.services.minutely import Minutely
from lxpy.services.networks.networks import Networks
from lxpy.services.projects.allowances import Allowances
from lxpy.services.projects.profiles import Profiles
from lxpy.services.projects.projects import Projects
from lxpy.services.projects.scopes import Scopes
from lxpy.services.recovery.records import Records
from lxpy.services.server.care import Care
from lxpy.services.server.certificate import ServerCertificate
from lxpy.services.server.metrics import Metrics
from lxpy.services.server.proxies import Proxies
from lxpy.services.server.server import Server
from lxpy.services.server.settings import Settings
from lxpy.services.server.trust import Trust
from lxpy.services.server.warnings import Warnings
from lxpy.services.snapshots.files import SnapshotFiles
from lxpy.services.snapshots.mounts import SnapshotMounts
from lxpy.services.snapshots.quiet import Pause
from lxpy.services.snapshots.schedule import Schedule
from lxpy.services.snapshots.snapshots import Snapshots
from lxpy.services.storage.backups import VolumeBackups
from lxpy.services.storage.copies import VolumeCopies
from lxpy.services.storage.disks import Disks
from lxpy.services.storage.exports import VolumeExports
from lxpy.services.storage.files import VolumeFiles
from lxpy.services.storage.imports import VolumeImports
from lxpy.services.storage.migration import VolumeMigration
from lxpy.services.storage.own_volumes import OwnVolumes
from lxpy.services.storage.pools import Pools
from lxpy.services.storage.roots import RootVolumes
from lxpy.services.storage.schedule import VolumeSchedule
from lxpy.services.storage.snapshots import VolumeSnapshots
from lxpy.services.storage.users import VolumeUsers
from lxpy.services.storage.volumes import Volumes
from lxpy.threads import in_thread
from lxpy.units import is_true

_POOL = "default"
_HTTPS_ADDRESS = "core.https_address"
_METRICS_ADDRESS = "core.metrics_address"
_METRICS_PORT = 9100
_METRICS = "/1.0/metrics"
_END_S = 10.0
_MAX_IMAGE_BYTES = 64 << 30
_MAX_IMAGE_FILES = 10_000_000

_log = structlog.get_logger()


class Application:
    """One daemon: everything it is made of. `stop` ends it; if it is to begin anew, `again` is set.

    While the database does not tell all that there is (`care`), what it says is shown, what runs
    runs on, and nothing else is done.
    """

    def __init__(self, directory: Path, *, stop: Callable[[], None]) -> None:
        self.directories = directories = Directories(directory)
        self._stop = stop
        self._background: set[asyncio.Task[None]] = set()
        self._autostart: asyncio.Task[None] | None = None
        self.db = Database(f"sqlite+aiosqlite:///{directories.database}")
        self.care = Care(self.db, directories)
        self.warnings = Warnings()
        self.again = False
        self.bus = bus = Bus()
        self.registry = registry = Registry(bus)
        self.lifecycle = lifecycle = Lifecycle(bus)
        self.locks = locks = Locks()
        self.journal = Journal(self.db)
        self.settings = Settings(self.db)
        self.proxies = Proxies(self.settings)
        self.scopes = scopes = Scopes(self.db)
        self.settings.of_project = scopes.config
        self.store = store = InstanceStore(self.db, scopes)
        self.lxcfs = Lxcfs(directories.lxcfs)
        self.runtime = Runtime(
            directories.run, cgroup=directories.cgroup, log_dir=directories.all_logs
        )
        self.pools = pools = Pools(self.db, directories.pools, store, locks, lifecycle)
        self.records = Records(directories.database, directories.records, pools)
        self.db.on_commit, pools.deleting = self.records.committed, self.records.without
        self.profiles = Profiles(self.db, scopes, lifecycle)
        self.allowances = Allowances(self.db, scopes, store)
        self.projects = Projects(self.db, scopes, self.allowances, registry, lifecycle)
        self.profiles.check = self._check_profile
        self.networks = Networks(
            self.db, directories.networks, directories.cgroup, store, locks, lifecycle
        )
        self.own_volumes = OwnVolumes(
            self.db, pools, locks, registry, images=directories.images,
            backups=directories.backups,
        )  # fmt: skip
        self.images = self._images()
        self.disks = Disks(self.db, scopes, pools, locks, directories.mounts)
        self.starter = Starter(
            directories, store, locks, pools, self.disks, self.networks, self.allowances, self.host
        )
        self._make_running()
        self._make_keeping()
        self._make_serving()

    def _make_running(self) -> None:
        """Make what instances run by, and what can be done to them."""
        directories, store, locks = self.directories, self.store, self.locks
        journal, registry, lifecycle = self.journal, self.registry, self.lifecycle
        runtime, pools = self.runtime, self.pools
        self.criu = Criu(directories.cache / "criu")
        self.checkpoints = Checkpoints(directories, runtime, self.criu)
        self.checkpoints.unsaved = self.networks.unsaved
        self.power = Power(
            store, locks, runtime, self.starter, self.networks, self.checkpoints, registry,
            lifecycle, self.host,
        )  # fmt: skip
        self.files = Files(store, locks, pools, runtime, lifecycle)
        self.snapshot_mounts = SnapshotMounts(directories.snapshot_mounts, store, locks, pools)
        self.starter.on_prepare = self.files.left
        self.views = Views(store.snapshots, runtime, self.power, self.networks, pools)
        self.snapshot_files = SnapshotFiles(store, journal, pools, self.checkpoints)
        self.snapshots = Snapshots(
            store=store, locks=locks, files=self.snapshot_files, checkpoints=self.checkpoints,
            pools=pools, power=self.power, runtime=runtime, views=self.views,
            allowances=self.allowances, registry=registry,
            lifecycle=lifecycle,
        )  # fmt: skip
        self.minutely = Minutely()
        self.minutely.add(Schedule(store, self.snapshots, self.power, registry).minutely)
        self.volume_files = VolumeFiles(self.db, pools, journal)
        self.restoring = Restoring(
            store=store, locks=locks, journal=journal, pools=pools, profiles=self.profiles,
            networks=self.networks, power=self.power, registry=registry, lifecycle=lifecycle,
        )  # fmt: skip
        self.instances = Instances(
            store=store, locks=locks, journal=journal, directories=directories, pools=pools,
            networks=self.networks, power=self.power, views=self.views, registry=registry,
            lifecycle=lifecycle,
        )  # fmt: skip

    def _make_keeping(self) -> None:
        """Make what takes instances and volumes elsewhere, and looks after them."""
        directories, store, locks = self.directories, self.store, self.locks
        registry, lifecycle, pools = self.registry, self.lifecycle, self.pools
        self.exports = Exports(
            store=store, locks=locks, journal=self.journal, pools=pools, profiles=self.profiles,
            power=self.power, runtime=self.runtime, views=self.views, settings=self.settings,
        )  # fmt: skip
        self.staging = Staging(directories.transfers, pools.storage)
        shelf = Shelf(self.db, BackupFiles(directories.backups))
        self.backups = Backups(
            self.db, shelf, self.allowances, store, locks, self.exports, registry,
            lifecycle,
        )  # fmt: skip
        self.views.backups = self.backups.of
        self.minutely.add(self.backups.prune)
        self.minutely.add(self.warnings.look)
        self.minutely.add(self.checkpoints.prune)
        self.instances.on_removed = self.backups.forget
        self.volumes = self._volumes(shelf)
        self.minutely.add(VolumeSchedule(self.db, locks, self.volumes.snapshots, registry).minutely)

    def _make_serving(self) -> None:
        """Make what changes instances and speaks to guests and clients."""
        directories, store, locks = self.directories, self.store, self.locks
        registry, lifecycle, runtime = self.registry, self.lifecycle, self.runtime
        self.updates = self._updates()
        self.hotplug = Hotplug(store, locks, runtime, self.starter)
        guests = Guests(directories, store, locks, runtime, self.images, lifecycle)
        self.updates.on_change = guests.changed
        self.guests = GuestListener(guests, directories.guest_api)
        self.checkpoints.alone = self.guests.cut
        self.profiles.on_change = self.updates.profile_changed
        self.exec = Exec(directories, store, runtime, self.power, registry, lifecycle)
        self.certificate = certificate = ServerCertificate(directories.root)
        self.https = Listener(certificate, self.networks.host_addresses, "HTTPS address")
        self.metrics = Metrics(store, runtime, self.pools, self.disks)
        self.metrics_listener = Listener(
            certificate, self.networks.host_addresses, "metrics address", _METRICS_PORT
        )
        self.trust = Trust(self.db, self.settings, certificate, registry, lifecycle)
        self.server = Server(
            self.db, self.settings, self.pools, lifecycle, certificate, self.own_volumes,
            self.warnings,
        )  # fmt: skip
        self.trust.addresses = self.server.addresses = self.https.addresses
        self.server.listen = self._listen
        self.startup = Startup(
            store=store, journal=self.journal, pools=self.pools, instances=self.instances,
            power=self.power, starter=self.starter, runtime=runtime,
            handlers={
                **self.snapshot_files.handlers(),
                **self.volume_files.handlers(),
                **self.pools.handlers(),
                "restore": self.restoring.finish,
            },
        )  # fmt: skip

        self.warnings.sources += [
            self.care.troubles, self.pools.troubles, self.networks.troubles, self.startup.troubles,
        ]  # fmt: skip

    def _images(self) -> Images:
        store = ImageStore(
            self.directories.images, max_bytes=_MAX_IMAGE_BYTES, max_files=_MAX_IMAGE_FILES
        )
        return Images(
            self.db, self.scopes, store, self.pools.storage, self.settings, self.registry,
            self.lifecycle, self.directories.cache, self.allowances,
        )  # fmt: skip

    def _volumes(self, shelf: Shelf) -> storage.Services:
        pause = partial(Pause, self.runtime, self.power)
        users = VolumeUsers(self.scopes, self.pools, self.store, self.locks, pause)
        users.own = self.own_volumes.users
        roots = RootVolumes(self.store, self.locks)
        volumes = Volumes(
            db=self.db, allowances=self.allowances, pools=self.pools, store=self.store,
            roots=roots, locks=self.locks, files=self.volume_files, users=users, disks=self.disks,
            lifecycle=self.lifecycle,
        )  # fmt: skip
        exports = VolumeExports(
            self.db, self.pools, self.journal, users, self.disks, self.exports.packer
        )
        backups = VolumeBackups(self.db, shelf, self.locks, exports, self.registry, self.lifecycle)
        volumes.on_removed = backups.forget
        return storage.Services(
            volumes=volumes,
            snapshots=VolumeSnapshots(
                db=self.db, pools=self.pools, roots=roots, locks=self.locks,
                journal=self.journal, files=self.volume_files, users=users, disks=self.disks,
                registry=self.registry, lifecycle=self.lifecycle,
            ),
            copies=VolumeCopies(
                db=self.db, scopes=self.scopes, pools=self.pools,
                journal=self.journal, files=self.volume_files,
                users=users, disks=self.disks, volumes=volumes, registry=self.registry,
                lifecycle=self.lifecycle,
            ),
            imports=VolumeImports(
                pools=self.pools, locks=self.locks, files=self.volume_files, volumes=volumes,
                registry=self.registry, lifecycle=self.lifecycle,
            ),
            exports=exports,
            backups=backups,
            migration=VolumeMigration(
                db=self.db, pools=self.pools, locks=self.locks, journal=self.journal,
                files=self.volume_files, users=users, volumes=volumes, exports=exports,
                staging=self.staging, registry=self.registry, lifecycle=self.lifecycle,
            ),
        )  # fmt: skip

    def _updates(self) -> Updates:
        live = Live(self.runtime, self.power, self.starter, self.networks)
        return Updates(
            store=self.store, locks=self.locks, profiles=self.profiles,
            allowances=self.allowances, pools=self.pools,
            networks=self.networks, power=self.power, starter=self.starter, live=live,
            restoring=self.restoring, registry=self.registry, lifecycle=self.lifecycle,
        )  # fmt: skip

    def host(self) -> Host:
        """Return what the host has now."""
        return host.read_host(self.lxcfs.path)

    # Life

    async def start(self) -> None:
        """Make everything ready for requests. Raises LxpyError when that cannot be."""
        try:
            # A full disk is no reason not to start.
            await in_thread(Reserve(self.directories.database).lend)
            await self.care.open()
        except OSError as error:
            raise Failed(f"Cannot open database {self.directories.database}: {error}") from error
        await in_thread(host.raise_settings)
        host.raise_open_files()
        await self.settings.load()
        self.proxies.apply()
        await in_thread(self.certificate.load)
        await self.trust.load()
        complete = self.care.is_sound
        if complete:
            await self._make_defaults()
        await self.pools.start()
        await self.own_volumes.start(self.settings.all())
        await self.images.start(complete=complete)
        await self.scopes.load()
        await self.store.load()
        if complete:
            await self.startup.recover()
            await self.backups.start()
        await self.lxcfs.start()
        await self.checkpoints.start()
        await self.staging.start()
        held = await self.runtime.connect()
        await self.startup.adopt(held, complete=complete)
        if complete:
            await self.volume_files.settle_sizes()
            await self.disks.sweep()
            await self.starter.sweep()
            await self.networks.start({each.name: each.pid for each in held})
        await self.power.settle()
        if complete:
            await self.power.agree_on_states()
            await self.startup.remove_ephemeral()
        await self.guests.start()
        await self.exec.take_over()
        await self.snapshot_mounts.adopt()

    async def _make_defaults(self) -> None:
        """Make what an installation has from its first day: pool, network, profiles."""
        network = self.directories.bridge
        await self.pools.ensure_default(_POOL)
        await self.networks.ensure_default(network)
        await self.profiles.ensure_default(_POOL, network)

    async def begin_https(
        self,
        serve: Callable[[], asyncio.Protocol],
        serve_metrics: Callable[[], asyncio.Protocol],
    ) -> None:
        """Answer over the network, too; both make the protocol of a connection."""
        await self.https.begin(serve, self.settings.get(_HTTPS_ADDRESS))
        await self.metrics_listener.begin(serve_metrics, self.settings.get(_METRICS_ADDRESS))

    async def _listen(self, config: Mapping[str, str]) -> None:
        await self.https.move(config.get(_HTTPS_ADDRESS, ""))
        await self.metrics_listener.move(config.get(_METRICS_ADDRESS, ""))

    def is_open(self, path: str) -> bool:
        """Tell whether anybody may read what is at a path."""
        closed = is_true(self.settings.get("core.metrics_authentication", "true"))
        return path == _METRICS and not closed

    def sees_network(self, project: str, name: str) -> bool:
        """Tell whether those in a project may know of a network."""
        return self.allowances.sees_network(project, name, managed=self.networks.is_managed(name))

    def begin(self) -> None:
        """Start what comes up with the daemon, in the background."""
        if not self.care.is_sound:
            return
        self._spawn(self.care.keep())
        self._spawn(self.records.keep())
        self._autostart = self._spawn(self.startup.autostart())
        self._spawn(self.minutely.run())
        self._spawn(self.hotplug.run())
        self._spawn(self.images.upkeep.maintain())
        self._spawn(self.criu.look())

    async def _check_profile(self, project: str, profile: Profile, users: list[Instance]) -> None:
        self.networks.check_devices(profile.devices)
        await self.allowances.check_profile(project, profile, users)

    def is_ready(self) -> bool:
        """Tell whether what comes up with the daemon has come up, or failed to."""
        return self._autostart is None or self._autostart.done()

    def host_goes_down(self) -> None:
        """Stop instances as each wants it, then everything (SIGPWR)."""
        self._spawn(self.shut_down(False, None))

    async def shut_down(self, force: bool, timeout_s: int | None) -> None:
        """Stop the instances, the supervisor, the networks, lxcfs, and at last the daemon."""
        others = self._background - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:  # a start that is being undone must not meet the end of the supervisor
            await asyncio.wait(others, timeout=_END_S)
        await self.startup.stop_all(force=force, timeout_s=timeout_s)
        try:
            await self.runtime.shutdown()
        except LxpyError as error:
            _log.warning("the supervisor stays", error=str(error))
        await self.snapshot_mounts.close()
        await self.networks.stop()
        await self.lxcfs.stop()
        await self.own_volumes.stop()
        await self.pools.stop()
        asyncio.get_running_loop().call_later(0.05, self._stop)

    def begin_anew(self) -> None:
        """End, and begin again in this process, as what the database holds is another."""
        self.again = True
        asyncio.get_running_loop().call_later(0.05, self._stop)

    def leave(self) -> None:
        """End what would keep connections open."""
        self.https.close()
        self.metrics_listener.close()
        self.bus.close()

    async def close(self) -> None:
        """Let go of everything; instances, their commands and networks go on."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.metrics.close()
        await self.registry.close()
        await self.guests.close()
        await self.exec.close()
        await self.runtime.close()
        await self.networks.close()
        await self.lxcfs.close()
        await self.pools.storage.close()
        if self.care.is_sound:
            await self.records.close()
        await self.db.close()
        await self.care.close()

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(_logged(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


async def _logged(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception:
        _log.exception("work in the background broke")
