"""Devices of instances: `validate` checks them, `plan` turns them into what a start needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lxpy.errors import InvalidConfig, LxpyError
from lxpy.instances.devices import disk, hardware, nic, proxy, unix
from lxpy.instances.devices.base import Options, names, refused
from lxpy.instances.devices.none import NONE
from lxpy.instances.devices.plans import (
    DevicePlan,
    Needs,
    Nodes,
    comes_and_goes,
    needs,
    plan,
    present,
)
from lxpy.instances.model import root_device
from lxpy.instances.names import check_device_name

__all__ = [
    "TYPES",
    "DevicePlan",
    "Needs",
    "Nodes",
    "comes_and_goes",
    "needs",
    "plan",
    "present",
    "validate",
    "validate_device",
]

TYPES: Mapping[str, Callable[[Options], None]] = {
    "disk": disk.DISK.validate,
    "nic": nic.validate,
    "none": NONE.validate,
    "proxy": proxy.PROXY.validate,
    "unix-block": unix.BLOCK.validate,
    "unix-char": unix.CHAR.validate,
    **dict.fromkeys(hardware.KINDS, hardware.validate),
    **dict.fromkeys(hardware.REFUSED, hardware.refuse),
}


def validate(devices: Mapping[str, Options], *, expanded: bool = False, instance: str = "") -> None:
    """Raise InvalidConfig or NotSupported, in LXD's words, at the first device not right.

    `expanded`: they are all devices of instance `instance`, so that there must be a root disk and
    they must go together.
    """
    for name, given in devices.items():
        validate_device(name, given)
    if not expanded:
        return
    root_device(devices)
    of_type = [(name, given) for name, given in devices.items()]
    disk.check_together(each for each in of_type if each[1].get("type") == "disk")
    nic.check_together((each for each in of_type if each[1].get("type") == "nic"), instance)


def validate_device(name: str, given: Options) -> None:
    """Raise InvalidConfig or NotSupported when one device is not right."""
    check_device_name(name)
    kind = given.get("type", "")
    check = TYPES.get(kind)
    if check is None:
        usable = names(TYPES.keys() - hardware.REFUSED)
        said = f'"{kind}" is none of {usable}' if kind else f"it has no type, use one of {usable}"
        problem = f'Failed loading device "{name}": Unsupported device type: {said}'
        raise refused(name, InvalidConfig(problem))
    try:
        check(given)
    except LxpyError as error:
        if str(error).startswith("Unsupported device type"):
            error = type(error)(f'Failed loading device "{name}": {error}')
        raise refused(name, error) from None
