"""Recipes: which distributions this host can build, read from `templates/images/*.yaml`.

A recipe is data. `Recipes.find("debian/13")` returns a `Plan`: what is common to the distribution
and what its release adds, merged. The keys are explained in `templates/images/README.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal, TypeVar

import msgspec
import yaml
from msgspec import Struct, field

from lxpy.errors import Failed, NotFound, NotSupported
from lxpy.images.metadata import architecture_name

T = TypeVar("T")
_DEFAULT = "default"

ToolName = Literal["mmdebstrap", "dnf", "apk", "wheel"]


class File(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A file of the image; `mode` is octal digits."""

    content: str
    mode: str = "644"

    @property
    def bits(self) -> int:
        """The mode as a number."""
        return int(self.mode, 8)


class Parts(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a distribution has in common, and what one of its releases adds."""

    tool: ToolName | None = None
    mirror: Literal["", "required"] | None = None
    options: dict[str, str] = field(default_factory=dict)
    packages: list[str] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)
    services: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    templates: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)


class Release(Parts, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One release; `name` is what the tool and the mirror call it, `variants` what it may add."""

    name: str
    version: str
    aliases: list[str] = field(default_factory=list)
    variants: dict[str, Parts] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """All names: version, name, aliases; each once."""
        return list(dict.fromkeys([self.version, self.name, *self.aliases]))


class Recipe(Parts, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One distribution."""

    name: str
    os: str
    releases: list[Release]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to build one image: the recipe's and the release's parts together."""

    distribution: str
    os: str
    release: str
    version: str
    variant: str
    architecture: str
    tool: ToolName
    needs_mirror: bool
    options: Mapping[str, str]
    packages: tuple[str, ...]
    files: Mapping[str, File]
    links: Mapping[str, str]
    remove: tuple[str, ...]
    services: tuple[str, ...]
    commands: tuple[str, ...]
    templates: Mapping[str, str]
    properties: Mapping[str, str]

    @property
    def alias(self) -> str:
        """The name that all aliases of this release stand for."""
        return _alias(self.distribution, self.version, self.variant)

    def option(self, key: str, mirror: str = "") -> str:
        """Return an option with {mirror}, {release}, {version} and {arch} filled in, or ""."""
        values = {
            "{mirror}": mirror.rstrip("/"),
            "{release}": self.release,
            "{version}": self.version,
            "{arch}": self.architecture,
        }
        text = self.options.get(key, "")
        for name, value in values.items():
            text = text.replace(name, value)
        return text


@dataclass(frozen=True, slots=True)
class Listed:
    """A release as a list of recipes shows it."""

    alias: str
    aliases: tuple[str, ...]
    description: str


class Recipes:
    """The recipes by name. `architecture` is the kernel's name of what this host builds."""

    def __init__(self, recipes: Mapping[str, Recipe], architecture: str) -> None:
        self._recipes = recipes
        self._architecture = architecture

    @classmethod
    def load(cls, architecture: str) -> Recipes:
        """Read the recipes that came with lxpy (blocking). Raises Failed naming a wrong file."""
        found: dict[str, Recipe] = {}
        for entry in (resources.files("lxpy.templates") / "images").iterdir():
            if entry.name.endswith(".yaml"):
                recipe = parse(entry.read_text(encoding="utf-8"), entry.name)
                found[recipe.name] = recipe
        return cls(dict(sorted(found.items())), architecture)

    def listed(self) -> list[Listed]:
        """Return every release of every distribution, newest first."""
        return [
            Listed(
                alias=_alias(recipe.name, release.version, variant),
                aliases=tuple(_alias(recipe.name, name, variant) for name in release.names[1:]),
                description=_description(recipe, release, variant),
            )
            for recipe in self._recipes.values()
            for release in recipe.releases
            for variant in (_DEFAULT, *release.variants)
        ]

    def find(self, alias: str) -> Plan:
        """Return the plan for "debian/13", "debian/trixie", "debian", "debian/13/cloud/amd64".

        Raises NotFound, and NotSupported for another architecture than this host's.
        """
        name, _, rest = alias.partition("/")
        recipe = self._recipes.get(name)
        if recipe is None:
            known = ", ".join(self._recipes)
            raise NotFound(f'No recipe for image "{alias}": this version has {known}')
        release, _, rest = rest.partition("/")
        words = [word for word in rest.split("/") if word]
        variants = [word for word in words if architecture_name(word) != self._architecture]
        for each in recipe.releases:
            if not release or release in each.names:
                variant = variants[0] if variants else _DEFAULT
                if len(variants) > 1 or variant not in (_DEFAULT, *each.variants):
                    raise NotSupported(
                        f'Image "{alias}" cannot be built: recipes build for this host, '
                        f"{self._architecture}, and {name}/{each.version} in variant "
                        + " or ".join((_DEFAULT, *each.variants))
                    )
                return _merge(recipe, each, variant, self._architecture)
        known = ", ".join(f"{name}/{each.version}" for each in recipe.releases)
        raise NotFound(f'No recipe for image "{alias}": this version has {known}')


def parse(text: str, name: str) -> Recipe:
    """Read one recipe. Raises Failed naming the file and what is wrong in it."""
    try:
        recipe = msgspec.convert(yaml.safe_load(text), Recipe)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise Failed(f"Invalid image recipe {name}: {error}") from error
    for problem in _problems(recipe):
        raise Failed(f"Invalid image recipe {name}: {problem}")
    return recipe


def _problems(recipe: Recipe) -> Iterator[str]:
    if not recipe.releases:
        yield "it has no releases"
    seen: set[str] = set()
    for release in recipe.releases:
        if release.tool is None and recipe.tool is None:
            yield f"release {release.version} has no tool"
        for name in release.names:
            if name in seen or "/" in name:
                yield f'"{name}" is no name for a release, or one twice'
            seen.add(name)
    variants = [part for each in recipe.releases for part in each.variants.values()]
    for part in (recipe, *recipe.releases, *variants):
        for path in (*part.files, *part.links, *part.remove, *part.templates):
            if not path.startswith("/") or ".." in path.split("/") or path.endswith("/"):
                yield f'"{path}" is no absolute path'
        for path, file in part.files.items():
            if not file.mode.isdigit() or set(file.mode) - set("01234567") or file.bits > 0o7777:
                yield f'mode "{file.mode}" of {path} is not octal'


def _merge(recipe: Recipe, release: Release, variant: str, architecture: str) -> Plan:
    tool = release.tool or recipe.tool
    assert tool is not None  # checked when it was read
    mirror = recipe.mirror if release.mirror is None else release.mirror
    parts: list[Parts] = [recipe, release]
    if variant != _DEFAULT:
        parts.append(release.variants[variant])
    return Plan(
        distribution=recipe.name,
        os=recipe.os,
        release=release.name,
        version=release.version,
        variant=variant,
        architecture=architecture,
        tool=tool,
        needs_mirror=mirror == "required",
        options=_mapping(each.options for each in parts),
        packages=_sequence(each.packages for each in parts),
        files=_mapping(each.files for each in parts),
        links=_mapping(each.links for each in parts),
        remove=_sequence(each.remove for each in parts),
        services=_sequence(each.services for each in parts),
        commands=tuple(line for each in parts for line in each.commands),
        templates=_mapping(each.templates for each in parts),
        properties={
            "description": _description(recipe, release, variant),
            "name": f"{recipe.name}-{release.name}-{architecture}-{variant}",
            "os": recipe.os,
            "release": release.name,
            "variant": variant,
            "version": release.version,
            **_mapping(each.properties for each in parts),
        },
    )


def _mapping(parts: Iterable[Mapping[str, T]]) -> dict[str, T]:
    return {key: value for part in parts for key, value in part.items()}


def _sequence(parts: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for part in parts for item in part))


def _alias(distribution: str, release: str, variant: str) -> str:
    return f"{distribution}/{release}" + (f"/{variant}" if variant != _DEFAULT else "")


def _description(recipe: Recipe, release: Release, variant: str) -> str:
    name = f" ({release.name})" if release.name != release.version else ""
    return f"{recipe.os} {release.version}{name}" + (f", {variant}" if variant != _DEFAULT else "")
