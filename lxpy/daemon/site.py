"""The HTTP application: every route, and the services that only routes use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from lxpy.daemon import cors, middleware
from lxpy.daemon.routes import (
    backups,
    certificates,
    checkpoints,
    description,
    events,
    files,
    images,
    instances,
    internal,
    metadata,
    metrics,
    network_policies,
    networks,
    operations,
    profiles,
    projects,
    recover,
    server,
    sftp,
    snapshot_mounts,
    snapshots,
    storage,
)
from lxpy.services.backups.imports import Imports
from lxpy.services.backups.increments import Increments
from lxpy.services.files.sftp import Sftp
from lxpy.services.files.trees import Trees
from lxpy.services.images.publish import Publish
from lxpy.services.instances.bulk import Bulk
from lxpy.services.instances.console import Consoles
from lxpy.services.instances.copies import Copies
from lxpy.services.instances.creation import Creation
from lxpy.services.instances.logs import Logs
from lxpy.services.instances.metadata import InstanceMetadata
from lxpy.services.instances.moves import Moves
from lxpy.services.memory.checks import Checks
from lxpy.services.memory.memory import Memory
from lxpy.services.memory.twins import Twins
from lxpy.services.migration import sink as migration_sink
from lxpy.services.migration.source import MigrationSource
from lxpy.services.recovery.recovery import Recovery
from lxpy.services.snapshots.differences import Differences

if TYPE_CHECKING:
    from lxpy.daemon.app import Application

_MAX_BODY_BYTES = 1 << 40


def build(app: Application) -> web.Application:
    """Return what answers requests, made of an application's services."""
    site = web.Application(
        middlewares=[
            cors.preflight,
            middleware.errors,
            middleware.identity(app.trust, app.is_open),
            middleware.projects(app.scopes),
            middleware.networks(app.sees_network),
            middleware.guard(lambda: app.care.reason or app.own_volumes.moving, lambda: app.again),
        ],
        client_max_size=_MAX_BODY_BYTES,
    )
    site.on_response_prepare.append(cors.allow(app.settings.get))
    for routes in _routes(app):
        site.add_routes(routes)
    return site


def build_metrics(app: Application) -> web.Application:
    """Return what answers those who want metrics alone."""
    site = web.Application(
        middlewares=[middleware.errors, middleware.identity(app.trust, app.is_open)]
    )
    site.add_routes(server.introductions(app.server))
    site.add_routes(metrics.routes(app.metrics))
    return site


def _routes(app: Application) -> Iterable[Iterable[web.AbstractRouteDef]]:
    yield instances.routes(_instances(app))
    yield metadata.routes(InstanceMetadata(app.store, app.locks, app.pools, app.lifecycle))
    yield snapshots.routes(app.snapshots, Differences(app.snapshots, app.pools), _source(app))
    yield backups.routes(app.backups, app.exports)
    yield files.routes(app.files, Trees(app.files))
    yield sftp.routes(Sftp(app.files, app.locks))
    yield snapshot_mounts.routes(app.snapshot_mounts)
    yield images.routes(app.images, _publish(app))
    yield networks.routes(app.networks, app.sees_network)
    yield network_policies.routes(app.networks)
    yield checkpoints.routes(Checks(app.store, app.runtime, app.criu, app.networks), _memory(app))
    yield storage.routes(app.pools, app.volumes)
    yield profiles.routes(app.profiles)
    yield server.routes(app.server)
    yield metrics.routes(app.metrics)
    yield projects.routes(app.projects)
    yield certificates.routes(app.trust)
    yield operations.routes(app.registry, app.lifecycle)
    yield events.routes(app.bus)
    yield internal.routes(app.shut_down, app.is_ready)
    yield recover.routes(_recovery(app))
    yield description.routes()


def _instances(app: Application) -> instances.Services:
    creation = _creation(app)
    sink = migration_sink.Parts(
        store=app.store, locks=app.locks, journal=app.journal, profiles=app.profiles,
        pools=app.pools, power=app.power, creation=creation, files=app.snapshot_files,
        staging=app.staging, registry=app.registry, memory=_memory(app),
        remove=app.instances.remove,
    )  # fmt: skip
    increments = Increments(
        app.store, app.journal, app.pools, app.profiles, app.snapshot_files, app.restoring
    )
    return instances.Services(
        instances=app.instances,
        creation=creation,
        source=_source(app),
        sink=migration_sink.MigrationSink(sink),
        imports=Imports(
            store=app.store, locks=app.locks, journal=app.journal, profiles=app.profiles,
            pools=app.pools, creation=creation, increments=increments, registry=app.registry,
        ),
        updates=app.updates,
        power=app.power,
        bulk=Bulk(app.store, app.power, app.views, app.registry),
        exec=app.exec,
        consoles=Consoles(
            app.directories, app.store, app.runtime, app.power, app.registry, app.lifecycle
        ),
        logs=Logs(app.directories, app.store, app.lifecycle),
        moves=_moves(app),
    )  # fmt: skip


def _source(app: Application) -> MigrationSource:
    return MigrationSource(
        app.store, app.exports, app.power, _memory(app), app.staging, app.pools.storage,
        app.registry,
    )  # fmt: skip


def _memory(app: Application) -> Memory:
    return Memory(app.store, app.locks, app.checkpoints, app.power)


def _copies(app: Application) -> Copies:
    return Copies(
        store=app.store, journal=app.journal, files=app.snapshot_files, pools=app.pools,
        images=app.images, power=app.power, runtime=app.runtime,
    )  # fmt: skip


def _moves(app: Application) -> Moves:
    return Moves(
        store=app.store, locks=app.locks, journal=app.journal, pools=app.pools,
        profiles=app.profiles, allowances=app.allowances, copies=_copies(app), starter=app.starter,
        instances=app.instances, power=app.power, registry=app.registry,
        lifecycle=app.lifecycle,
    )  # fmt: skip


def _creation(app: Application) -> Creation:
    return Creation(
        store=app.store, locks=app.locks, journal=app.journal, profiles=app.profiles,
        allowances=app.allowances,
        images=app.images, pools=app.pools, networks=app.networks, starter=app.starter,
        power=app.power, copies=_copies(app), registry=app.registry, lifecycle=app.lifecycle,
        twins=Twins(app.store, app.checkpoints, app.power, app.runtime),
    )  # fmt: skip


def _publish(app: Application) -> Publish:
    return Publish(
        store=app.store, locks=app.locks, pools=app.pools, power=app.power,
        images=app.images, settings=app.settings, registry=app.registry,
    )  # fmt: skip


def _recovery(app: Application) -> Recovery:
    return Recovery(
        db=app.db, directories=app.directories, pools=app.pools, store=app.store,
        journal=app.journal, profiles=app.profiles, care=app.care, registry=app.registry,
        is_running=lambda name: app.runtime.held(name) is not None,
        begin_anew=app.begin_anew,
    )  # fmt: skip
