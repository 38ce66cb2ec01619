"""usb, gpu and unix-hotplug: what matches, what is refused."""

from __future__ import annotations

import pytest

from lxpy.errors import Failed, InvalidConfig, NotSupported
from lxpy.instances import devices
from lxpy.instances.devices import plans
from lxpy.instances.devices.hardware import Hardware

KEY = Hardware("/dev/bus/usb/001/004", "c", 189, 3, "usb", "1050", "0407", "S1", 1, 4)
MOUSE = Hardware("/dev/bus/usb/002/002", "c", 189, 129, "usb", "046d", "c077", "", 2, 2)
SERIAL = Hardware("/dev/ttyUSB0", "c", 188, 0, "tty", "0403", "6001")
INTEL = Hardware("/dev/dri/card0", "c", 226, 0, "drm", "8086", "9a49", pci="0000:00:02.0", card=0)
RENDER = Hardware("/dev/dri/renderD128", "c", 226, 128, "drm", "8086", "9a49", pci="0000:00:02.0")
TESLA = Hardware("/dev/dri/card1", "c", 226, 1, "drm", "10de", "1eb8", pci="0000:3b:00.0", card=1)
NVIDIA0 = Hardware("/dev/nvidia0", "c", 195, 0, "nvidia", "10de", pci="0000:3b:00.0")
NVIDIACTL = Hardware("/dev/nvidiactl", "c", 195, 255, "nvidia", "10de")
ALL = (KEY, MOUSE, SERIAL, INTEL, RENDER, TESLA, NVIDIA0, NVIDIACTL)


def _paths(**given: str) -> list[str]:
    device = {key.replace("_", "."): value for key, value in given.items()}
    devices.validate({"d": device})
    found = plans.plan({}, {"d": device}, nodes=plans.Nodes(hardware=ALL))
    return [node.path for node in found.nodes]


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ({"type": "usb"}, [KEY.path, MOUSE.path]),
        ({"type": "usb", "vendorid": "1050"}, [KEY.path]),
        ({"type": "usb", "vendorid": "046D", "productid": "C077"}, [MOUSE.path]),
        ({"type": "usb", "serial": "S1"}, [KEY.path]),
        ({"type": "usb", "busnum": "2", "devnum": "2"}, [MOUSE.path]),
        ({"type": "usb", "vendorid": "ffff"}, []),
        ({"type": "unix-hotplug", "vendorid": "0403"}, [SERIAL.path]),
        ({"type": "unix-hotplug", "vendorid": "0403", "subsystem": "block"}, []),
        ({"type": "unix-hotplug", "vendorid": "1050"}, []),
        ({"type": "gpu"}, [INTEL.path, RENDER.path, TESLA.path, NVIDIA0.path, NVIDIACTL.path]),
        ({"type": "gpu", "id": "0"}, [INTEL.path, RENDER.path]),
        ({"type": "gpu", "pci": "00:02.0"}, [INTEL.path, RENDER.path]),
        ({"type": "gpu", "vendorid": "10de", "gputype": "physical"},
         [TESLA.path, NVIDIA0.path, NVIDIACTL.path]),
    ],
)  # fmt: skip
def test_what_matches(given: dict[str, str], paths: list[str]) -> None:
    assert _paths(**given) == paths


def test_owner_and_mode() -> None:
    given = {"type": "usb", "serial": "S1", "uid": "5", "gid": "6", "mode": "0600"}
    (node,) = plans.plan({}, {"d": given}, nodes=plans.Nodes(hardware=ALL)).nodes
    assert (node.uid, node.gid, node.mode, node.device) == (5, 6, 0o600, "d")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"type": "usb", "serial": "S9", "required": "true"}, "Required USB device not found"),
        ({"type": "unix-hotplug", "vendorid": "9999", "required": "true"}, "Required Unix Hotplug"),
        ({"type": "gpu", "id": "7"}, "Failed to detect requested GPU device.*id=7"),
    ],
)
def test_required(given: dict[str, str], text: str) -> None:
    with pytest.raises(Failed, match=text):
        _paths(**given)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"type": "unix-hotplug"}, InvalidConfig, "require a vendorid or a productid"),
        ({"type": "gpu", "pci": "00:02.0", "id": "1"}, InvalidConfig, 'Cannot use "id" when "pci"'),
        ({"type": "gpu", "gputype": "mdev"}, NotSupported, "virtual machines"),
        ({"type": "gpu", "gputype": "mig"}, NotSupported, "use physical"),
        ({"type": "tpm"}, NotSupported, "no emulated TPM"),
        ({"type": "infiniband"}, NotSupported, "InfiniBand"),
        ({"type": "pci"}, NotSupported, "virtual machines"),
        ({"type": "usb", "vendorid": "xyz"}, InvalidConfig, "four lower case hex"),
    ],
)
def test_refused(given: dict[str, str], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        devices.validate({"d": given})


def test_what_comes_and_goes() -> None:
    char = {"type": "unix-char", "path": "/dev/x"}
    assert devices.comes_and_goes({"type": "usb"})
    assert devices.comes_and_goes({**char, "required": "false"})
    assert not devices.comes_and_goes(char)
    assert not devices.comes_and_goes({**char, "required": "false", "major": "1", "minor": "3"})
    assert not devices.comes_and_goes({"type": "gpu"})
