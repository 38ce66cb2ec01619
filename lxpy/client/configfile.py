"""The user's config.yml: read as a whole, and written whole or not at all."""

from __future__ import annotations

import os

from lxpy.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def directory() -> str:
    """Return where the user's config.yml is: LXPY_CONF, or ~/.config/lxpy."""
    if path := os.environ.get("LXPY_CONF"):
        return path
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(base, "lxpy")


def path() -> str:
    """Return the path of config.yml."""
    return os.path.join(directory(), "config.yml")


def text() -> str:
    """Return what is in it, nothing when there is none or it is not for this user."""
    try:
        with open(path(), encoding="utf-8") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ""


def parse(content: str) -> dict[str, Any]:
    """Return what a text of its kind says. Raises BadRequest."""
    import yaml  # 12 ms, and most users have no such file

    try:
        data = yaml.safe_load(content) or {}
    except yaml.YAMLError as error:
        raise BadRequest(f"{path()} is no YAML: {error}") from error
    if not isinstance(data, dict):
        raise BadRequest(f"{path()} is no list of remotes and aliases")
    return data


def change(**sections: object) -> None:
    """Replace sections of it; everything else in it stays. Raises BadRequest."""
    import yaml

    data = {**parse(text()), **sections}
    os.makedirs(directory(), mode=0o750, exist_ok=True)
    with open(f"{path()}.new", "w", encoding="utf-8") as file:
        yaml.safe_dump(data, file, default_flow_style=False)
    os.replace(f"{path()}.new", path())
