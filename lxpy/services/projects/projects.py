"""Projects: scopes of names, with limits and restrictions for what is in them.

Source: LXD docs, "REST API", "Projects"; "Project configuration".
"""

from __future__ import annotations

import asyncio
import builtins
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import quote

from msgspec import UNSET

from lxpy.api import projects as api
from lxpy.db import projects as queries
from lxpy.db.engine import Database
from lxpy.db.rows import ProfileRow, ProjectRow
from lxpy.errors import BadRequest, Conflict, Failed, Forbidden
from lxpy.events.lifecycle import Lifecycle, url
from lxpy.instances import allowed
from lxpy.instances.model import DEFAULT_PROJECT
from lxpy.operations.registry import Operation, Registry
from lxpy.services.projects.allowances import Allowances
from lxpy.services.projects.keys import DEFAULT_FEATURES, checked
from lxpy.services.projects.scopes import Feature, Project, Scopes
from lxpy.units import parse_size

PATH = "/1.0/projects"
#: raises PreconditionFailed when the writable part it is shown is not the one the caller knows
Check = Callable[[object], None]
_NAME = re.compile(r"[^/\s_'\"*?&]{1,63}")
_LIMITS = ("limits.cpu", "limits.disk", "limits.memory", "limits.processes")


class Projects:
    """Lists and changes projects; tells whether an instance is allowed in one."""

    def __init__(
        self,
        db: Database,
        scopes: Scopes,
        allowances: Allowances,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._db = db
        self._scopes = scopes
        self._allowances = allowances
        self._registry = registry
        self._lifecycle = lifecycle
        self._changing = asyncio.Lock()

    async def list(self) -> list[api.Project]:
        """Return all projects by name."""
        return [await self._shown(each) for each in self._scopes.listed()]

    async def get(self, name: str) -> tuple[api.Project, object]:
        """Return a project and its writable part. Raises NotFound."""
        found = self._scopes.get(name)
        return await self._shown(found), _writable(found)

    async def state(self, name: str) -> api.ProjectState:
        """Return limits and usage of a project. Raises NotFound."""
        project = self._scopes.get(name)
        contents = await self._allowances.contents(name)
        number = len(contents.instances)
        found = {
            "containers": api.Amount(usage=number),
            "instances": api.Amount(usage=number),
            "virtual-machines": api.Amount(),
            "networks": api.Amount(),
        }
        for key in _LIMITS:
            found[key.removeprefix("limits.")] = api.Amount(usage=allowed.usage(key, contents))
        for kind, amount in found.items():
            if text := project.config.get(f"limits.{kind}"):
                amount.limit = parse_size(text)
        return api.ProjectState(resources=found)

    async def create(self, wish: api.ProjectsPost) -> None:
        """Make a project. Raises BadRequest, InvalidConfig, Conflict."""
        name = _checked_name(wish.name)
        config = checked(wish.config or {})
        for key, value in DEFAULT_FEATURES.items():
            config.setdefault(key, value)
        project = Project(name, config, wish.description)
        async with self._changing:
            if self._scopes.has(name):
                raise Conflict(
                    f'Failed creating project "{name}": A project of this name already exists'
                )
            async with self._db.write() as session:
                session.add(
                    ProjectRow(name=name, description=wish.description, config=dict(config))
                )
                if project.has(Feature.PROFILES):
                    session.add(_default_profile(name))
            self._scopes.keep(project)
        self._emit("project-created", name)

    async def put(self, name: str, wish: api.ProjectPut, check: Check) -> None:
        """Replace a project's config and description.

        Raises NotFound, BadRequest, PreconditionFailed; Failed and Forbidden when what is in it
        would not be allowed.
        """
        await self._change(name, lambda _: (wish.config or {}, wish.description), check)

    async def patch(self, name: str, wish: api.ProjectPatch, check: Check) -> None:
        """Change what is given. Raises as `put`."""

        def change(old: Project) -> tuple[Mapping[str, str], str]:
            given = {} if wish.config is UNSET else wish.config or {}
            text = old.description if wish.description is UNSET else wish.description
            return {**old.config, **given}, text

        await self._change(name, change, check)

    async def _change(
        self, name: str, change: Callable[[Project], tuple[Mapping[str, str], str]], check: Check
    ) -> None:
        async with self._changing:
            old = self._scopes.get(name)
            check(_writable(old))
            config, description = change(old)
            new = Project(name, _checked(old, config), description)
            await self._check_features(old, new)
            await self._allowances.check_change(name, old.config, new.config)
            async with self._db.write() as session:
                row = await queries.named(session, name)
                row.config, row.description = dict(new.config), description
                if new.has(Feature.PROFILES) and not old.has(Feature.PROFILES):
                    session.add(_default_profile(name))
            self._scopes.keep(new)
        self._emit("project-updated", name)

    async def _check_features(self, old: Project, new: Project) -> None:
        changed = [each for each in Feature if old.has(each) != new.has(each)]
        if not changed:
            return
        if old.name == DEFAULT_PROJECT or await self._contents(old.name):
            raise BadRequest(
                f'Project feature "{changed[0].removeprefix("features.")}" cannot be '
                f"{'enabled' if new.has(changed[0]) else 'disabled'} on non-empty projects"
            )
        if not new.has(Feature.PROFILES):
            async with self._db.write() as session:
                await queries.remove_profiles(session, old.name)

    async def rename(self, name: str, wish: api.ProjectPost) -> Operation:
        """Start to rename an empty project.

        Raises NotFound, Forbidden, BadRequest, Conflict; Failed when it is not empty.
        """
        self._scopes.get(name)
        if name == DEFAULT_PROJECT:
            raise Forbidden("The 'default' project cannot be renamed")
        new_name = _checked_name(wish.name)

        async def work(_: Operation) -> None:
            async with self._changing:
                old = self._scopes.get(name)
                if self._scopes.has(new_name):
                    raise Conflict(f'A project named "{new_name}" already exists')
                await self._check_empty(name)
                async with self._db.write() as session:
                    await queries.rename(session, name, new_name)
                self._scopes.forget(name)
                self._scopes.keep(replace(old, name=new_name))
            self._emit("project-renamed", new_name, {"old_name": name})

        operation = self._registry.spawn("Renaming project", work)
        await operation.wait(1)  # it is done at once; pylxd asks for the new name without waiting
        return operation

    async def delete(self, name: str) -> None:
        """Remove an empty project. Raises NotFound, Forbidden, Failed."""
        self._scopes.get(name)
        if name == DEFAULT_PROJECT:
            raise Forbidden("The 'default' project cannot be deleted")
        async with self._changing:
            self._scopes.get(name)  # it may have been renamed meanwhile
            await self._check_empty(name)
            async with self._db.write() as session:
                await queries.remove_profiles(session, name)
                await session.delete(await queries.named(session, name))
            self._scopes.forget(name)
        self._emit("project-deleted", name)

    # What is in one

    async def _shown(self, project: Project) -> api.Project:
        return api.Project(
            config=dict(project.config),
            description=project.description,
            name=project.name,
            used_by=[url(each, project.name) for each in await self._contents(project.name)]
            + [url(f"/1.0/profiles/{DEFAULT_PROJECT}", project.name)]
            * (project.has(Feature.PROFILES) and project.name != DEFAULT_PROJECT),
        )

    async def _contents(self, name: str) -> builtins.list[str]:
        """Return the paths of all that is in a project, but its default profile."""
        async with self._db.read() as session:
            contents = await queries.contents(session, name)
            volumes = await queries.volumes(session, name)
        found = [
            f"/1.0/{kind}/{quote(each, safe='')}"
            for kind, names in contents.items()
            for each in names
            if name == DEFAULT_PROJECT or (kind, each) != ("profiles", DEFAULT_PROJECT)
        ]
        return found + [
            f"/1.0/storage-pools/{each.pool.name}/volumes/custom/{each.name}" for each in volumes
        ]

    async def _check_empty(self, name: str) -> None:
        if found := await self._contents(name):
            raise Failed(f"Only empty projects can be removed or renamed: {found[0]} is in it")

    def _emit(self, action: str, name: str, context: Mapping[str, str] | None = None) -> None:
        self._lifecycle.emit(action, f"{PATH}/{quote(name, safe='')}", context=context)


def _checked(old: Project, config: Mapping[str, str]) -> dict[str, str]:
    """Return the config of a project as it is stored; the default one has the host's networks."""
    if old.name != DEFAULT_PROJECT:
        return checked(config)
    features = {each: old.config[each] for each in Feature if each in old.config}
    if features != {each: config[each] for each in Feature if each in config}:
        raise BadRequest("You can't change the features of the default project")
    return checked({key: text for key, text in config.items() if key not in features}) | features


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise BadRequest(
            f'Invalid project name "{name[:80]}": no blanks, "/", "_", quotes, "*", "?" or "&", '
            "and at most 63 characters"
        )
    return name


def _writable(project: Project) -> list[object]:
    return [project.description, dict(project.config)]


def _default_profile(project: str) -> ProfileRow:
    return ProfileRow(
        project=project, name=DEFAULT_PROJECT, config={}, devices={},
        description=f"Default LXD profile for project {project}",
    )  # fmt: skip
