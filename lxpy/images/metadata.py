"""metadata.yaml: what an image says about itself, parsed and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import yaml

from lxpy.errors import Failed

ImageType = Literal["container", "virtual-machine"]
_SECONDS_MAX = 253402300799  # the year 9999: what a date on the wire can say

# Names in use for the same processor -> the kernel's own name, which LXD shows.
_ARCHITECTURES = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "i386": "i686",
    "i586": "i686",
    "x86": "i686",
    "armhf": "armv7l",
    "armel": "armv6l",
    "arm": "armv7l",
    "ppc64el": "ppc64le",
    "powerpc": "ppc",
    "powerpc64": "ppc64",
}


@dataclass(frozen=True, slots=True)
class Template:
    """A file of the guest that is rendered from templates/: see lxpy.instances.templates."""

    path: str
    template: str
    when: tuple[str, ...]
    create_only: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metadata:
    """An image's metadata; times are seconds since the epoch, 0 for none."""

    architecture: str
    creation_date: int
    expiry_date: int = 0
    properties: Mapping[str, str] = field(default_factory=dict)
    templates: tuple[Template, ...] = ()
    type: ImageType = "container"


def architecture_name(name: str) -> str:
    """Return the kernel's name of an architecture, whatever distribution `name` comes from."""
    return _ARCHITECTURES.get(name.lower(), name)


def parse(text: str, *, type: ImageType = "container") -> Metadata:
    """Parse metadata.yaml (YAML or JSON) of an image. Raises Failed in LXD's words."""
    found = _load(text)
    architecture = found.get("architecture")
    if not isinstance(architecture, str) or not architecture:
        raise Failed("Missing/Invalid architecture in metadata.yaml")
    creation_date = _seconds(found.get("creation_date"))
    if not creation_date:
        raise Failed("Missing/Invalid creation_date in metadata.yaml")
    return Metadata(
        architecture=architecture_name(architecture),
        creation_date=creation_date,
        expiry_date=_seconds(found.get("expiry_date")) or 0,
        properties=_strings(found.get("properties"), "properties"),
        templates=_templates(found.get("templates")),
        type=type,
    )


def kept(text: str) -> Metadata:
    """Parse metadata.yaml as an instance keeps it, and its users change it: all may be missing.

    Raises Failed.
    """
    found = _load(text)
    return Metadata(
        architecture=_string(found.get("architecture")),
        creation_date=_seconds(found.get("creation_date")) or 0,
        expiry_date=_seconds(found.get("expiry_date")) or 0,
        properties=_strings(found.get("properties"), "properties"),
        templates=_templates(found.get("templates")),
    )


def _load(text: str) -> dict[object, object]:
    try:
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = str(error).replace("\n", " ")
        raise Failed(f"Could not parse metadata.yaml: {problem}") from error
    if not isinstance(found, dict):
        raise Failed("Could not parse metadata.yaml: it is no mapping")
    return found


def dump(metadata: Metadata) -> str:
    """Return metadata.yaml for a Metadata."""
    data: dict[str, object] = {
        "architecture": metadata.architecture,
        "creation_date": metadata.creation_date,
        "expiry_date": metadata.expiry_date,
        "properties": dict(metadata.properties),
        "templates": {
            each.path: {
                "when": list(each.when),
                "create_only": each.create_only,
                "template": each.template,
                "properties": dict(each.properties),
            }
            for each in metadata.templates
        },
    }
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _seconds(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= _SECONDS_MAX:  # also not a number
        return None
    return int(value)


def _strings(value: object, where: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Failed(f"Missing/Invalid {where} in metadata.yaml")
    return {str(key): _string(item) for key, item in value.items()}


def _string(value: object) -> str:
    """Return a scalar as its author wrote it: YAML reads `13` as a number, `yes` as a bool."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _templates(value: object) -> tuple[Template, ...]:
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise Failed("Missing/Invalid templates in metadata.yaml")
    result = []
    for path, options in value.items():
        if not isinstance(options, dict):
            raise Failed(f'Invalid template "{path}" in metadata.yaml')
        when = options.get("when") or []
        found = Template(
            path=path,
            template=options.get("template") or "",
            when=tuple(when) if isinstance(when, list) else (str(when),),
            create_only=options.get("create_only") is True,
            properties=_strings(options.get("properties"), f'properties of "{path}"'),
        )
        check_template(found)
        result.append(found)
    return tuple(result)


def check_template(template: Template) -> None:
    """Raise Failed, naming what is wrong with one."""
    path, name = template.path, template.template
    if not isinstance(path, str) or not path.startswith("/"):
        raise Failed(f'Invalid template "{path}" in metadata.yaml')
    if not isinstance(name, str) or not is_template_name(name):
        raise Failed(f'Invalid template file of "{path}" in metadata.yaml')
    if not all(isinstance(each, str) for each in template.when):  # others never happen
        raise Failed(f'Invalid trigger of template "{path}" in metadata.yaml')


def is_template_name(name: str) -> bool:
    """Whether a text names a file that may lie in templates/."""
    return name.isprintable() and "/" not in name and name not in ("", ".", "..")
