"""Which project's objects count in a project: its own, or those of "default".

A project that has not a feature ("features.images") has no images of its own: whoever looks for one
looks in "default". Everything that finds or makes such objects asks `Scopes.owner` before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lxpy.db import projects as queries
from lxpy.db.engine import Database
from lxpy.errors import NotFound
from lxpy.instances.model import DEFAULT_PROJECT
from lxpy.units import is_true


class Feature(StrEnum):
    """What a project may have of its own; the value is its config key."""

    IMAGES = "features.images"
    PROFILES = "features.profiles"
    VOLUMES = "features.storage.volumes"
    NETWORKS = "features.networks"


@dataclass(frozen=True, slots=True)
class Project:
    """A project, as the database has it."""

    name: str
    config: Mapping[str, str] = field(default_factory=dict)
    description: str = ""

    def has(self, feature: Feature) -> bool:
        """Tell whether it has such objects of its own."""
        return self.name == DEFAULT_PROJECT or is_true(self.config.get(feature))


class Scopes:
    """All projects, kept in memory: this daemon alone writes them (see `Projects`)."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._projects = {DEFAULT_PROJECT: Project(DEFAULT_PROJECT)}

    async def load(self) -> None:
        """Read them from the database."""
        async with self._db.read() as session:
            rows = await queries.everything(session)
        self._projects = {
            row.name: Project(row.name, dict(row.config), row.description) for row in rows
        }
        self._projects.setdefault(DEFAULT_PROJECT, Project(DEFAULT_PROJECT))

    def has(self, name: str) -> bool:
        """Tell whether there is such a project."""
        return name in self._projects

    def get(self, name: str) -> Project:
        """Return a project. Raises NotFound."""
        try:
            return self._projects[name]
        except KeyError:
            raise NotFound("Project not found") from None

    def listed(self) -> list[Project]:
        """Return all projects by name."""
        return sorted(self._projects.values(), key=lambda each: each.name)

    def owner(self, feature: Feature, project: str) -> str:
        """Return the project whose objects count in a project, which is itself if unknown."""
        found = self._projects.get(project)
        return project if found is None or found.has(feature) else DEFAULT_PROJECT

    def users(self, feature: Feature, owner: str) -> set[str]:
        """Return the projects in which the objects of `owner` count."""
        return {each for each in self._projects if self.owner(feature, each) == owner}

    def config(self, project: str, key: str, default: str = "") -> str:
        """Return the value of a project's config key, `default` where it has none."""
        found = self._projects.get(project)
        return (found.config.get(key) if found else "") or default

    # For `Projects`, which has written the change

    def keep(self, project: Project) -> None:
        """Have a project be as it is now."""
        self._projects[project.name] = project

    def forget(self, name: str) -> None:
        """Have a project no more."""
        self._projects.pop(name, None)


def allowed(mine: Collection[str] | None, project: str) -> bool:
    """Tell whether one who may see the projects `mine` (None: all) may see this one."""
    return mine is None or project in mine
