"""usb, gpu and unix-hotplug: nodes of the host's hardware, found by what it is.

Source: LXD docs, "USB device", "GPU device", "Unix hotplug device".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lxpy.errors import Failed, InvalidConfig, LxpyError, NotSupported
from lxpy.instances.devices.base import Kind, Options, options
from lxpy.keys import BOOL, MODE, STRING, UINT32, UNIX_ID, Type, choice, matching
from lxpy.runtime.spec import Node
from lxpy.units import is_true

NVIDIA = "10de"
_ID = re.compile(r"[0-9a-fA-F]{4}")
_PCI = re.compile(r"(?:([0-9a-fA-F]{1,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])")


@dataclass(frozen=True, slots=True)
class Hardware:
    """A device node of the host and the hardware behind it; ids are lower case hex digits.

    `card` is the number of a DRM card, -1 for none; `pci` its address. NVIDIA's nodes that belong
    to no card have the vendor alone.
    """

    path: str
    kind: Literal["c", "b"]
    major: int
    minor: int
    subsystem: str
    vendorid: str = ""
    productid: str = ""
    serial: str = ""
    busnum: int = 0
    devnum: int = 0
    pci: str = ""
    card: int = -1


def _pci(value: str) -> None:
    if not _PCI.fullmatch(value):
        raise InvalidConfig(f'Invalid PCI address "{value}": write it as 0000:02:08.0')


def _id(value: str) -> None:
    if not _ID.fullmatch(value):
        raise InvalidConfig(f'Invalid value, must be four lower case hex characters: "{value}"')


_HEX4 = Type("string", _id)
_OWNER = (("uid", UNIX_ID, "0"), ("gid", UNIX_ID, "0"), ("mode", MODE, "0660"))


def _check_hotplug(given: Options) -> None:
    if not given.get("vendorid") and not given.get("productid"):
        raise InvalidConfig("Unix hotplug devices require a vendorid or a productid")


def _check_gpu(given: Options) -> None:
    for main, others in (
        ("pci", ("id", "productid", "vendorid")),
        ("id", ("pci", "productid", "vendorid")),
    ):
        for key in others if given.get(main) else ():
            if given.get(key):
                raise InvalidConfig(f'Cannot use "{key}" when "{main}" is set')


USB = Kind(
    "usb",
    options(
        ("vendorid", _HEX4), ("productid", _HEX4), ("serial", STRING), ("busnum", UINT32),
        ("devnum", UINT32), ("required", BOOL, "false"), *_OWNER,
    ),
)  # fmt: skip
HOTPLUG = Kind(
    "unix-hotplug",
    options(
        ("vendorid", _HEX4), ("productid", _HEX4), ("subsystem", STRING),
        ("required", BOOL, "false"), *_OWNER,
    ),
    check=_check_hotplug,
)  # fmt: skip
GPU = Kind(
    "gpu",
    options(
        ("gputype", choice("physical"), "physical"), ("vendorid", _HEX4), ("productid", _HEX4),
        ("id", matching(r"[0-9]{1,3}", "the number of a DRM card")), ("pci", Type("string", _pci)),
        *_OWNER,
    ),
    check=_check_gpu,
)  # fmt: skip
KINDS = {each.name: each for each in (USB, HOTPLUG, GPU)}
_REFUSED = {
    "infiniband": "containers of lxpy get no InfiniBand devices: use a unix-char device for "
    "/dev/infiniband nodes, and a physical nic",
    "tpm": "containers of lxpy get no emulated TPM: it would not move with them",
    "pci": "PCI devices are for virtual machines: use gpu, usb, unix-char or a physical nic",
}
REFUSED = frozenset(_REFUSED)
_GPU_TYPES = ("mdev", "mig", "sriov")


def refuse(given: Options) -> None:
    """Refuse a type that LXD has and lxpy will not have."""
    raise NotSupported(f'Unsupported device type "{given["type"]}": {_REFUSED[given["type"]]}')


def validate(given: Options) -> None:
    """Raise InvalidConfig or NotSupported when the options are not right."""
    kind = given.get("gputype", "")
    if given["type"] == "gpu" and kind in _GPU_TYPES:
        reason = "mdev and sriov are for virtual machines" if kind != "mig" else "use physical"
        raise NotSupported(f'Unsupported device type: gputype "{kind}": {reason}')
    KINDS[given["type"]].validate(given)


def matches(given: Options, found: Hardware) -> bool:
    """Whether a device of the host is what a device's options ask for."""
    for key in ("vendorid", "productid"):
        if given.get(key) and given[key].lower() != getattr(found, key):
            return False
    if given["type"] == "usb":
        if found.subsystem != "usb" or (given.get("serial") or found.serial) != found.serial:
            return False
        numbers = (("busnum", found.busnum), ("devnum", found.devnum))
        return all(int(given.get(key) or number) == number for key, number in numbers)
    if given["type"] == "unix-hotplug":
        wanted = given.get("subsystem") or found.subsystem
        return bool(found.vendorid) and found.subsystem == wanted and found.subsystem != "usb"
    if given.get("pci") and _normal_pci(given["pci"]) != found.pci:
        return False
    if found.subsystem != "drm" or found.card < 0:
        return False
    return int(given.get("id") or found.card) == found.card


def _normal_pci(text: str) -> str:
    match = _PCI.fullmatch(text)
    assert match is not None, "it was checked"
    domain, bus, slot, function = match.groups()
    return f"{int(domain or '0', 16):04x}:{bus}:{slot}.{function}".lower()


def plan(device: str, given: Options, hardware: Iterable[Hardware]) -> tuple[Node, ...]:
    """Return the nodes of a device. Raises Failed when it is required and not there."""
    known = list(hardware)
    found = [each for each in known if matches(given, each)]
    if given["type"] == "gpu":
        found = _whole_cards(found, known)
    if not found and (given["type"] == "gpu" or is_true(given.get("required"))):
        raise _missing(device, given)
    return tuple(
        Node(
            path=each.path,
            kind=each.kind,
            major=each.major,
            minor=each.minor,
            mode=int(given.get("mode") or "0660", 8),
            uid=int(given.get("uid") or 0),
            gid=int(given.get("gid") or 0),
            device=device,
        )
        for each in found
    )


def _whole_cards(cards: list[Hardware], known: list[Hardware]) -> list[Hardware]:
    """Return the nodes of graphics cards: those of the same hardware, and NVIDIA's common ones."""
    pcis = {each.pci for each in cards}
    whole = [each for each in known if each.pci in pcis and each.subsystem in ("drm", "nvidia")]
    if any(each.vendorid == NVIDIA for each in cards):
        whole += [each for each in known if each.subsystem == "nvidia" and not each.pci]
    return whole


def _missing(device: str, given: Options) -> LxpyError:
    texts = {
        "usb": "Required USB device not found",
        "unix-hotplug": "Required Unix Hotplug device not found",
        "gpu": "Failed to detect requested GPU device",
    }
    asked = ", ".join(f"{key}={value}" for key, value in given.items() if key != "type")
    return Failed(
        f'Failed to start device "{device}": {texts[given["type"]]}: this host has none'
        + (f" with {asked}" if asked else "")
    )
