"""Networks: made, changed, renamed, deleted; instances are joined to them and leave them.

Source: LXD docs, "Networks", "Bridge network".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from msgspec import UNSET

from lxpy.api import instances as instances_api
from lxpy.api import networks as api
from lxpy.db import networks as queries
from lxpy.db import profiles as profile_queries
from lxpy.db.engine import Database
from lxpy.db.rows import NetworkRow, ProfileRow
from lxpy.errors import BadRequest, Conflict, LxpyError, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.devices.nic import NicPlan
from lxpy.instances.expand import merge_patch
from lxpy.instances.model import DEFAULT_PROJECT, Instance
from lxpy.networks import addresses, keys
from lxpy.networks.drivers import TYPES
from lxpy.networks.drivers.bridge import check_free
from lxpy.networks.keys import Bridge
from lxpy.services import network_views as views
from lxpy.services import nics
from lxpy.services.joined import Joined, Network
from lxpy.services.locks import Locks
from lxpy.services.store import InstanceStore


class Networks:
    """All networks of this installation; they belong to project "default", every project sees them.

    Rows are kept in memory: this daemon alone writes them.
    """

    def __init__(
        self,
        db: Database,
        joined: Joined,
        store: InstanceStore,
        locks: Locks,
        lifecycle: Lifecycle,
    ) -> None:
        self._db = db
        self._joined = joined
        self._store = store
        self._locks = locks
        self._lifecycle = lifecycle

    @property
    def _known(self) -> dict[str, Network]:
        return self._joined.networks

    # Life
