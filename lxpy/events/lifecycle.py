"""Lifecycle events: what has become of which object, and who asked for it.

Source: LXD docs, "Events", "Life-cycle events".
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

from lxpy.api.events import Lifecycle as Metadata
from lxpy.api.events import Requestor
from lxpy.events.bus import Bus

#: who sent the request that this task works for; None when the daemon acts by itself
requestor: ContextVar[Requestor | None] = ContextVar("requestor", default=None)

_ACTIONS = """
instance-created instance-deleted instance-renamed instance-updated instance-started
instance-stopped instance-shutdown instance-restarted instance-paused instance-resumed
instance-ready instance-restored instance-exec instance-console instance-console-retrieved
instance-console-reset instance-file-retrieved instance-file-pushed instance-file-deleted
instance-log-retrieved instance-log-deleted
instance-metadata-retrieved instance-metadata-updated
instance-metadata-template-created instance-metadata-template-deleted
instance-metadata-template-retrieved
instance-snapshot-created instance-snapshot-deleted instance-snapshot-renamed
instance-snapshot-updated
instance-backup-created instance-backup-deleted instance-backup-renamed
instance-backup-retrieved
image-created image-deleted image-updated image-refreshed image-retrieved
image-secret-created image-alias-created image-alias-deleted image-alias-renamed
image-alias-updated
profile-created profile-deleted profile-renamed profile-updated
project-created project-deleted project-renamed project-updated
network-created network-deleted network-renamed network-updated
network-forward-created network-forward-deleted network-forward-updated
network-acl-created network-acl-deleted network-acl-renamed network-acl-updated
storage-pool-created storage-pool-deleted storage-pool-updated
storage-volume-created storage-volume-deleted storage-volume-renamed storage-volume-updated
storage-volume-restored
storage-volume-snapshot-created storage-volume-snapshot-deleted storage-volume-snapshot-renamed
storage-volume-snapshot-updated
storage-volume-backup-created storage-volume-backup-deleted storage-volume-backup-renamed
storage-volume-backup-retrieved
config-updated operation-cancelled
certificate-created certificate-deleted certificate-updated
"""
ACTIONS = frozenset(_ACTIONS.split())


def url(path: str, project: str = "default") -> str:
    """Return the URL of an object: its project is named unless it is "default"."""
    return path if project in ("", "default") else f"{path}?project={quote(project)}"


class Lifecycle:
    """Sends lifecycle events."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def emit(
        self,
        action: str,
        path: str,
        project: str = "default",
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell that `action` has happened to the object at `path` ("/1.0/instances/c1")."""
        assert action in ACTIONS, action
        metadata = Metadata(
            action=action,
            source=url(path, project),
            context=dict(context) if context else None,
            requestor=requestor.get(),
        )
        self._bus.publish("lifecycle", metadata, project)
