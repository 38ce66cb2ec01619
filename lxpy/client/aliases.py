"""The user's own commands, kept under `aliases` in config.yml as LXD's client keeps them."""

from __future__ import annotations

from lxpy.client import configfile
from lxpy.errors import BadRequest, Conflict, NotFound


def load() -> dict[str, str]:
    """Return what each alias stands for. Raises BadRequest for a file that can't be understood."""
    text = configfile.text()
    if "aliases:" not in text:  # most files have none, and yaml takes 12 ms to import
        return {}
    found = configfile.parse(text).get("aliases") or {}
    if not isinstance(found, dict):
        raise BadRequest(f"{configfile.path()}: aliases are no map of names to commands")
    return {str(name): str(target) for name, target in found.items()}


def add(name: str, target: str) -> None:
    """Keep an alias. Raises Conflict when there is one of that name."""
    known = load()
    if name in known:
        raise Conflict(f"Alias {name} already exists")
    configfile.change(aliases={**known, name: target})


def remove(name: str) -> None:
    """Forget an alias. Raises NotFound."""
    known = load()
    _require(known, name)
    del known[name]
    configfile.change(aliases=known)


def rename(name: str, new: str) -> None:
    """Give an alias another name. Raises NotFound, Conflict."""
    known = load()
    _require(known, name)
    if new in known:
        raise Conflict(f"Alias {new} already exists")
    known[new] = known.pop(name)
    configfile.change(aliases=known)


def _require(known: dict[str, str], name: str) -> None:
    if name not in known:
        raise NotFound(f"Alias {name} doesn't exist")
