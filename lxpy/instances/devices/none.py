"""none: hides a device of the same name that a profile brings."""

from __future__ import annotations

from lxpy.instances.devices.base import Kind, options

NONE = Kind("none", options())
