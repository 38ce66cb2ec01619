"""Events as they go over the websocket of `/1.0/events`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct

TYPES = ("lifecycle", "logging", "operation")


class Event(Struct, kw_only=True, omit_defaults=True):
    """One event; `project` is left out where it concerns the whole server."""

    type: str
    timestamp: datetime
    metadata: Any
    location: str = ""
    project: str = ""


class Requestor(Struct, kw_only=True):
    """Who asked for what has happened."""

    username: str
    protocol: str
    address: str = ""


class Lifecycle(Struct, kw_only=True, omit_defaults=True):
    """Metadata of a lifecycle event; `source` is the URL of the object."""

    action: str
    source: str
    context: dict[str, Any] | None = None
    requestor: Requestor | None = None
