"""The programs that bootstrap a distribution, one module each, by their names in recipes."""

from lxpy.images.recipes import ToolName
from lxpy.images.tools import apk, dnf, mmdebstrap, wheel
from lxpy.images.tools.base import Tool, Work

TOOLS: dict[ToolName, Tool] = {
    "mmdebstrap": mmdebstrap.bootstrap,
    "dnf": dnf.bootstrap,
    "apk": apk.bootstrap,
    "wheel": wheel.bootstrap,
}

__all__ = ["TOOLS", "Tool", "Work"]
