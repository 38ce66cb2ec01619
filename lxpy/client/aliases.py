"""The user's own commands, kept under `aliases` in config.yml as LXD's client keeps them."""

from __future__ import annotations

import os

from lxpy.client.remotes import config_directory
from lxpy.errors import BadRequest, Conflict, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load() -> dict[str, str]:
    """Return what each alias stands for. Raises BadRequest for a file that can't be understood."""
    text = _read()
    if "aliases:" not in text:  # most files have none, and yaml takes 12 ms to import
        return {}
    found = _parse(text).get("aliases") or {}
    if not isinstance(found, dict):
        raise BadRequest(f"{_path()}: aliases are no map of names to commands")
    return {str(name): str(target) for name, target in found.items()}


def add(name: str, target: str) -> None:
    """Keep an alias. Raises Conflict when there is one of that name."""
    known = load()
    if name in known:
        raise Conflict(f"Alias {name} already exists")
    _save({**known, name: target})


def remove(name: str) -> None:
    """Forget an alias. Raises NotFound."""
    known = load()
    _require(known, name)
    del known[name]
    _save(known)


def rename(name: str, new: str) -> None:
    """Give an alias another name. Raises NotFound, Conflict."""
    known = load()
    _require(known, name)
    if new in known:
        raise Conflict(f"Alias {new} already exists")
    known[new] = known.pop(name)
    _save(known)


def _require(known: dict[str, str], name: str) -> None:
    if name not in known:
        raise NotFound(f"Alias {name} doesn't exist")


def _path() -> str:
    return os.path.join(config_directory(), "config.yml")


def _read() -> str:
    try:
        with open(_path(), encoding="utf-8") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ""


def _parse(text: str) -> dict[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise BadRequest(f"{_path()} is no YAML: {error}") from error
    if not isinstance(data, dict):
        raise BadRequest(f"{_path()} is no list of remotes and aliases")
    return data


def _save(known: dict[str, str]) -> None:
    """Write config.yml anew, whole or not at all; everything else in it stays."""
    import yaml

    data = {**_parse(_read()), "aliases": known}
    path = _path()
    os.makedirs(config_directory(), mode=0o750, exist_ok=True)
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        yaml.safe_dump(data, file, default_flow_style=False)
    os.replace(f"{path}.new", path)
