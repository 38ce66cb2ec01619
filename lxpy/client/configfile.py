"""The user's config.yml, whose format is that of LXD's client: remotes, aliases."""

from __future__ import annotations

import os

from lxpy.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def directory() -> str:
    """Return where the user's files are: LXPY_CONF, or ~/.config/lxpy."""
    if path := os.environ.get("LXPY_CONF"):
        return path
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(base, "lxpy")


def path() -> str:
    """Return the path of config.yml."""
    return os.path.join(directory(), "config.yml")


def text() -> str:
    """Return what is in config.yml, nothing where there is none."""
    try:
        with open(path(), encoding="utf-8") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ""


def parse(found: str) -> dict[str, Any]:
    """Return the map that a config.yml is. Raises BadRequest."""
    if not found:
        return {}
    import yaml  # 12 ms, and most users have no such file

    try:
        data = yaml.safe_load(found) or {}
    except yaml.YAMLError as error:
        raise BadRequest(f"{path()} is no YAML: {error}") from error
    if not isinstance(data, dict):
        raise BadRequest(f"{path()} is no list of remotes and aliases")
    return data


def change(**parts: object) -> None:
    """Write config.yml anew with some of its parts changed; whole or not at all."""
    import yaml

    data = {**parse(text()), **parts}
    os.makedirs(directory(), mode=0o750, exist_ok=True)
    write(path(), yaml.safe_dump(data, default_flow_style=False).encode())


def write(target: str, data: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all."""
    new = f"{target}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(new, target)
