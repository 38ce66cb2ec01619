"""Built-in profiles: one YAML file each, read through importlib.resources.

`${pool}` and `${network}` in a value are those of the installation.
"""

from __future__ import annotations

from importlib import resources
from string import Template

import yaml

from lxpy.errors import NotFound
from lxpy.instances.model import Profile

__all__ = ["load", "names"]

_SUFFIX = ".yaml"


def names() -> list[str]:
    """Return the names of the built-in profiles."""
    found = (each.name for each in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX))


def load(name: str, *, pool: str, network: str) -> Profile:
    """Return a built-in profile for an installation. Raises NotFound."""
    if name not in names():
        known = ", ".join(names())
        raise NotFound(f'Profile not found: "{name}" is not built in, there are {known}')
    text = resources.files(__name__).joinpath(name + _SUFFIX).read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    facts = {"pool": pool, "network": network}
    return Profile(
        name=name,
        description=data["description"],
        config=_filled(data.get("config", {}), facts),
        devices={
            device: _filled(given, facts) for device, given in data.get("devices", {}).items()
        },
    )


def _filled(values: dict[str, str], facts: dict[str, str]) -> dict[str, str]:
    return {key: Template(value).substitute(facts) for key, value in values.items()}
