"""The files of an instance that its image has templates for: /etc/hostname, cloud-init's seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

from lxpy.errors import Failed
from lxpy.instances.model import Instance
from lxpy.instances.pongo import Renderer
from lxpy.runtime.spec import FileWrite

Trigger = Literal["create", "copy", "start", "rename"]


class FileTemplate(Protocol):
    """What an image's metadata says of one template."""

    @property
    def path(self) -> str:
        """The file in the rootfs."""

    @property
    def template(self) -> str:
        """The name of the file in templates/."""

    @property
    def when(self) -> tuple[str, ...]:
        """The triggers it is rendered at."""

    @property
    def create_only(self) -> bool:
        """Whether an existing file is left alone."""

    @property
    def properties(self) -> Mapping[str, str]:
        """What the template sees as `properties`."""


def wanted(templates: Iterable[FileTemplate], triggers: Iterable[Trigger]) -> list[str]:
    """Return the names of the template files that `render` will need, each once."""
    due = frozenset(triggers)
    names = {each.template: None for each in templates if due.intersection(each.when)}
    return list(names)


def render(
    templates: Iterable[FileTemplate],
    sources: Mapping[str, str],
    triggers: Iterable[Trigger],
    instance: Instance,
) -> tuple[FileWrite, ...]:
    """Return the files of an instance whose templates are due at `triggers` ("create", "start").

    `sources` has the text of the files that `wanted` named. Raises Failed for a template that is
    missing or wrong, naming it.
    """
    due = list(triggers)
    files: list[FileWrite] = []
    for each in templates:
        trigger = next((name for name in due if name in each.when), None)
        if trigger is None:
            continue
        source = sources.get(each.template)
        if source is None:
            raise Failed(
                f'Failed to render template "{each.template}" of "{each.path}": the image has no '
                "such file in templates/"
            )
        renderer = Renderer(values(instance, trigger, each.path, each.properties))
        files.append(
            FileWrite(
                path=each.path,
                content=renderer.render(each.template, source),
                create_only=each.create_only,
            )
        )
    return tuple(files)


def values(
    instance: Instance, trigger: str, path: str, properties: Mapping[str, str]
) -> dict[str, object]:
    """Return what a template sees; truths are the texts "true" and "false", as with LXD."""
    config = instance.expanded_config
    about = {
        "name": instance.name,
        "type": "container",
        "architecture": instance.architecture,
        "privileged": str(instance.privileged).lower(),
        "ephemeral": str(instance.ephemeral).lower(),
    }

    def config_get(key: object, default: object = "") -> object:
        value = config.get(str(key))
        return default if value is None else value.rstrip("\r\n")

    return {
        "trigger": trigger,
        "path": path,
        "container": about,
        "instance": about,
        "config": config,
        "devices": instance.expanded_devices,
        "properties": properties,
        "config_get": config_get,
        "true": True,
        "false": False,
    }
