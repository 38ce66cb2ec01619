"""Instance types: "c2-m4" or a cloud's name for a size, as limits.

Source: LXD docs, "Instance types"; sizes as their cloud publishes them.
"""

from __future__ import annotations

import re
from math import ceil

from lxpy.errors import BadRequest

_NUMBER = r"([0-9]{1,5}(?:\.[0-9]{1,2})?)"
_CUSTOM = re.compile(rf"(?=[cm])(?:c{_NUMBER})?(?:(?:^|-)m{_NUMBER})?")
#: AWS: cpus, GiB of memory
_AWS = {
    "t2.nano": (1, 0.5), "t2.micro": (1, 1.0), "t2.small": (1, 2.0), "t2.medium": (2, 4.0),
    "t2.large": (2, 8.0), "t2.xlarge": (4, 16.0), "t2.2xlarge": (8, 32.0),
    "t3.nano": (2, 0.5), "t3.micro": (2, 1.0), "t3.small": (2, 2.0), "t3.medium": (2, 4.0),
    "t3.large": (2, 8.0), "t3.xlarge": (4, 16.0), "t3.2xlarge": (8, 32.0),
    "m5.large": (2, 8.0), "m5.xlarge": (4, 16.0), "m5.2xlarge": (8, 32.0),
    "m5.4xlarge": (16, 64.0), "c5.large": (2, 4.0), "c5.xlarge": (4, 8.0),
    "c5.2xlarge": (8, 16.0), "c5.4xlarge": (16, 32.0), "r5.large": (2, 16.0),
    "r5.xlarge": (4, 32.0), "r5.2xlarge": (8, 64.0),
}  # fmt: skip


def limits_of(instance_type: str) -> dict[str, str]:
    """Return the limits.* of an instance type; {} for "". Raises BadRequest for an unknown one."""
    name = instance_type.removeprefix("aws:").lower()
    if not name:
        return {}
    if name in _AWS:
        return _limits(*_AWS[name])
    match = _CUSTOM.fullmatch(name)
    config = _limits(float(match[1] or 0), float(match[2] or 0)) if match else {}
    if not config:
        raise BadRequest(
            f"Provided instance type doesn't exist: {instance_type}: use cCPUS-mGIB, as in c2-m4, "
            f"or one of {', '.join(sorted(_AWS))}"
        )
    return config


def _limits(cpus: float, memory: float) -> dict[str, str]:
    """Return limits in LXD's words, which has 1024 MB to each of the `memory` (GiB)."""
    config = {}
    if cpus:
        config["limits.cpu"] = str(ceil(cpus))
        if share := int(cpus / ceil(cpus) * 100) % 100:
            config["limits.cpu.allowance"] = f"{share}%"
    if memory:
        config["limits.memory"] = f"{int(memory * 1024)}MB"
    return config
