"""Every instance key has a test that sees its effect, is refused, or is only kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lxpy.instances.keys import INSTANCE_KEYS

SYSTEM = Path(__file__).parents[2] / "system"

#: beginning of a key -> the test that looks inside, or at the kernel; the longest one counts
SEEN = {
    "boot.autostart": "test_autostart.py::test_priority_and_delay",
    "boot.host_shutdown_timeout": "test_key_effects.py::test_the_order_in_which_instances_stop",
    "boot.stop.priority": "test_key_effects.py::test_the_order_in_which_instances_stop",
    "cloud-init.network-config": "test_cloudinit.py::test_old_keys_and_network_config",
    "cloud-init.": "test_cloudinit.py::test_user_data_is_carried_out",
    "environment.": "test_key_effects.py::test_environment",
    "limits.cpu": "test_limits.py::test_cpu_count_and_set",
    "limits.cpu.allowance": "test_limits.py::test_allowance",
    "limits.cpu.priority": "test_limits.py::test_priority_is_a_weight",
    "limits.disk.priority": "test_disk_limits.py::test_priorities",
    "limits.hugepages.": "test_disk_limits.py::test_huge_pages",
    "limits.kernel.": "test_option_effects.py::test_limits_of_the_kernel",
    "limits.kernel.core": "test_key_effects.py::test_kernel_settings",
    "limits.kernel.nofile": "test_key_effects.py::test_kernel_settings",
    "limits.memory": "test_limits.py::test_memory",
    "limits.memory.enforce": "test_option_effects.py::test_soft_memory",
    "limits.memory.swap": "test_option_effects.py::test_no_swap",
    "limits.memory.swap.priority": "test_disk_limits.py::test_priorities",
    "limits.processes": "test_limits.py::test_processes",
    "linux.kernel_modules": "test_key_effects.py::test_kernel_modules",
    "linux.sysctl.": "test_key_effects.py::test_kernel_settings",
    "migration.incremental.memory": "test_memory_tracking.py::test_a_move_sends_memory_ahead",
    "raw.idmap": "test_key_effects.py::test_ids",
    "raw.lxc": "test_config_keys.py::test_lines_of_liblxc",
    "raw.seccomp": "test_config_keys.py::test_calls_are_denied",
    "security.devlxd": "test_devlxd.py::test_it_can_be_switched_off",
    "security.devlxd.images": "test_devlxd.py::test_images",
    "security.idmap.": "test_key_effects.py::test_ids",
    "security.live": "test_key_effects.py::test_live_prepares_run",
    "security.nesting": "test_key_effects.py::test_nesting",
    "security.privileged": "test_key_effects.py::test_without_a_user_namespace",
    "security.protection.": "test_key_effects.py::test_protection",
    "security.syscalls.allow": "test_config_keys.py::test_only_what_is_allowed_can_be_called",
    "security.syscalls.blacklist": "test_config_keys.py::test_calls_are_denied",
    "security.syscalls.deny": "test_config_keys.py::test_calls_are_denied",
    "security.syscalls.deny_compat": "test_config_keys.py::test_programs_of_32_bits_can_be_refused",
    "security.syscalls.deny_default": (
        "test_config_keys.py::test_the_default_list_is_there_unless_it_is_not_wanted"
    ),
    "security.syscalls.intercept.": "test_config_keys.py::test_calls_that_are_carried_out",
    "security.syscalls.intercept.sysinfo": (
        "test_config_keys.py::test_sysinfo_is_the_instances_own"
    ),
    "security.syscalls.whitelist": "test_config_keys.py::test_only_what_is_allowed_can_be_called",
    "snapshots.": "test_snapshots.py::test_schedules",
}
#: refused with a reason, and where that is seen
REFUSED = {
    "limits.network.priority": "test_disk_limits.py::test_what_is_refused",
    "nvidia.": "test_disk_limits.py::test_what_is_refused",
    "raw.apparmor": "test_key_effects.py::test_what_cannot_be_done_is_refused",
    "security.syscalls.intercept.bpf": "test_config_keys.py::test_calls_that_are_not_carried_out",
    "security.syscalls.intercept.mount": "test_config_keys.py::test_calls_that_are_not_carried_out",
}
#: what LXD, too, only keeps
KEPT = ("cluster.evacuate", "image.", "user.", "volatile.")


def where(key: str) -> str:
    """The test for a key, "" for one that is only kept. Raises KeyError when there is none."""
    known = {**SEEN, **REFUSED, **dict.fromkeys(KEPT, "")}
    fitting = [begin for begin in known if key == begin or key.startswith(begin)]
    if not fitting:
        raise KeyError(f"nothing shows what {key} does: write a test, or refuse it")
    return known[max(fitting, key=len)]


@pytest.mark.parametrize("key", [each.name for each in INSTANCE_KEYS])
def test_every_key_is_accounted_for(key: str) -> None:
    where(key)


@pytest.mark.parametrize("place", sorted({*SEEN.values(), *REFUSED.values()}))
def test_the_tests_exist(place: str) -> None:
    file, _, name = place.partition("::")
    assert re.search(rf"^def {name}\(", (SYSTEM / file).read_text(), re.MULTILINE), place


def test_every_key_says_what_it_is_for() -> None:
    silent = [each.name for each in INSTANCE_KEYS if not each.description]
    assert all(name.startswith("volatile.") for name in silent)
