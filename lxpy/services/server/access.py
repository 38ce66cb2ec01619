"""Which projects the sender of a request may touch, known to whatever works for it.

Source: LXD docs, "Restricted TLS certificates".
"""

from __future__ import annotations

from contextvars import ContextVar

from lxpy.errors import Forbidden

#: None: all of them
projects: ContextVar[frozenset[str] | None] = ContextVar("projects", default=None)


def is_restricted() -> bool:
    """Tell whether the sender is confined to some projects."""
    return projects.get() is not None


def allows(project: str) -> bool:
    """Tell whether the sender may see and change what is in a project."""
    allowed = projects.get()
    return allowed is None or project in allowed


def check(project: str) -> None:
    """Raise Forbidden unless the sender may see and change what is in a project."""
    if not allows(project):
        raise Forbidden("not authorized")
