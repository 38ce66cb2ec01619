"""What an administrator should know: each service tells what is wrong now, here it gets a history.

A warning goes by itself with its cause; one that was dismissed comes back only with a new cause.
Source: LXD docs, "REST API", "warnings"; the names of their types are LXD's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from lxpy.api.server import Warned
from lxpy.db.base import now
from lxpy.errors import BadRequest, NotFound

AUTOSTART = "Failed to autostart instance"
POOL = "Storage pool unavailable"
NETWORK = "Network unavailable"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong now, with what; `severity` is "low", "moderate" or "high"."""

    kind: str
    text: str
    severity: str = "high"
    entity_url: str = ""
    project: str = ""


class Warnings:
    """Warnings of all services, each of which adds what tells its troubles to `sources`."""

    def __init__(self) -> None:
        self.sources: list[Callable[[], Iterable[Trouble]]] = []
        self._known: dict[tuple[str, str], Warned] = {}
        self._dismissed: dict[tuple[str, str], str] = {}

    async def look(self, _: datetime | None = None) -> None:
        """Note what is wrong: once a minute, and at the end of the start."""
        self._reconcile()

    def warnings(self) -> Sequence[Warned]:
        """Return what is wrong, by the time it was first seen."""
        self._reconcile()
        return sorted(self._known.values(), key=lambda each: each.first_seen_at)

    def mark(self, uuid: str, status: str) -> None:
        """Note that a warning is known, or new again. Raises NotFound, BadRequest."""
        if status not in ("new", "acknowledged"):
            raise BadRequest(f'Status may only be set to "acknowledged" or "new", not "{status}"')
        self._known[self._find(uuid)].status = status

    def dismiss(self, uuid: str) -> None:
        """Forget a warning, until there is another cause for it. Raises NotFound."""
        key = self._find(uuid)
        self._dismissed[key] = self._known.pop(key).last_message

    def _find(self, uuid: str) -> tuple[str, str]:
        for key, each in self._known.items():
            if each.uuid == uuid:
                return key
        raise NotFound("Warning not found")

    def _reconcile(self) -> None:
        troubles = {(t.kind, t.entity_url): t for source in self.sources for t in source()}
        for gone in self._known.keys() - troubles.keys():
            del self._known[gone]
        for gone in self._dismissed.keys() - troubles.keys():
            del self._dismissed[gone]
        for key, trouble in troubles.items():
            if self._dismissed.get(key) != trouble.text:
                self._dismissed.pop(key, None)
                self._note(key, trouble)

    def _note(self, key: tuple[str, str], trouble: Trouble) -> None:
        old, moment = self._known.get(key), now()
        if old is not None:
            if old.last_message != trouble.text:
                old.count, old.status, old.last_message = old.count + 1, "new", trouble.text
            old.last_seen_at = moment
            return
        self._known[key] = Warned(
            uuid=str(uuid5(NAMESPACE_URL, "lxpy:" + ":".join(key))),
            type=trouble.kind,
            severity=trouble.severity,
            first_seen_at=moment,
            last_seen_at=moment,
            last_message=trouble.text,
            project=trouble.project,
            entity_url=trouble.entity_url,
        )
