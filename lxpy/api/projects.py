"""`/1.0/projects`.

Source: LXD docs, "REST API", "Projects".
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

Config = dict[str, str]


class Project(Struct, kw_only=True):
    """A project; `used_by` are URLs of all that is in it."""

    config: Config
    description: str
    name: str
    used_by: list[str]


class ProjectPut(Struct, kw_only=True):
    """What of a project can be changed: what is missing is unset."""

    config: Config | None = None
    description: str = ""


class ProjectPatch(Struct, kw_only=True):
    """What of a project shall change."""

    config: Config | None | UnsetType = UNSET
    description: str | UnsetType = UNSET


class ProjectsPost(ProjectPut, kw_only=True):
    """A new project."""

    name: str = ""


class ProjectPost(Struct, kw_only=True):
    """A project's new name."""

    name: str = ""


class Amount(Struct, kw_only=True, rename="pascal"):
    """How much of something a project may have, -1 for no limit, and has."""

    limit: int = -1
    usage: int = 0


class ProjectState(Struct, kw_only=True):
    """What a project's instances may have and have: "instances", "memory" (bytes) ..."""

    resources: dict[str, Amount]
