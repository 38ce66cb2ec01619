"""Limits and pinning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxpy.errors import InvalidConfig
from lxpy.instances import pinning
from lxpy.instances.limits import Host, build_limits
from lxpy.instances.rlimits import rlimits
from lxpy.keys import parse_cpus
from lxpy.runtime.spec import Limits

HOST = Host(cpus=(0, 1, 2, 3), memory_bytes=8 << 30)


@pytest.mark.parametrize(
    ("config", "limits"),
    [
        ({}, Limits()),
        ({"limits.memory": "512MiB"}, Limits(memory_bytes=512 << 20)),
        ({"limits.memory": "50%"}, Limits(memory_bytes=4 << 30)),
        ({"limits.memory": "1GiB", "limits.memory.enforce": "soft"},
         Limits(memory_soft_bytes=1 << 30)),
        ({"limits.memory": ""}, Limits()),
        ({"limits.memory.swap": "false"}, Limits(swap=False)),
        ({"limits.cpu": "2"}, Limits(cpus="0-1")),
        ({"limits.cpu": "64"}, Limits(cpus="0-3")),
        ({"limits.cpu": "1-2,9"}, Limits(cpus="1-2")),
        ({"limits.cpu.allowance": "50%"}, Limits(cpu_weight=50)),
        ({"limits.cpu.allowance": "5%", "limits.cpu.priority": "0"}, Limits(cpu_weight=1)),
        ({"limits.cpu.priority": "3"}, Limits(cpu_weight=93)),
        ({"limits.cpu.allowance": "25ms/100ms"},
         Limits(cpu_quota_us=25_000, cpu_period_us=100_000)),
        ({"limits.cpu.allowance": "200ms/50ms"},
         Limits(cpu_quota_us=200_000, cpu_period_us=50_000)),
        ({"limits.processes": "100"}, Limits(pids=100)),
        ({"limits.disk.priority": "0"}, Limits(io_weight=10)),
        ({"limits.disk.priority": "7"}, Limits(io_weight=700)),
        ({"limits.hugepages.2MB": "4MiB"}, Limits(hugepages={"2MB": 4 << 20})),
        ({"limits.memory.swap.priority": "10"}, Limits(swappiness=60)),
        ({"limits.memory.swap.priority": "0"}, Limits(swappiness=70)),
    ],
)  # fmt: skip
def test_limits(config: dict[str, str], limits: Limits) -> None:
    assert build_limits(config, HOST) == limits


def test_the_assigned_cpus_are_taken() -> None:
    assert build_limits({"limits.cpu": "2"}, HOST, "1,3").cpus == "1,3"
    assert build_limits({"limits.cpu": "0"[:0]}, HOST, "1,3").cpus is None


def test_cpus_the_host_lacks() -> None:
    with pytest.raises(InvalidConfig, match='none of the cpus "8-9"'):
        build_limits({"limits.cpu": "8-9"}, HOST)


def test_resource_limits() -> None:
    config = {"limits.kernel.nofile": "1024:2048", "limits.kernel.nproc": "5", "limits.cpu": "1",
              "limits.kernel.core": "0:unlimited", "limits.kernel.memlock": "unlimited",
              "limits.kernel.stack": ""}  # fmt: skip
    assert rlimits(config) == {
        "nofile": (1024, 2048), "nproc": (5, 5), "core": (0, -1), "memlock": (-1, -1)
    }  # fmt: skip


COUNTS = st.lists(st.integers(1, 12), max_size=40)


@given(COUNTS, st.sets(st.integers(0, 40), min_size=1, max_size=12))
def test_cpus_are_shared_out_evenly(counts: list[int], cpus: set[int]) -> None:
    online = sorted(cpus)
    limits = [(f"c{number}", str(count)) for number, count in enumerate(counts)]
    chosen = pinning.balance(limits, online)
    load = dict.fromkeys(online, 0)
    for name, limit in limits:
        found = parse_cpus(chosen[name])
        assert len(found) == min(int(limit), len(online))
        for cpu in found:
            load[cpu] += 1
    assert max(load.values()) - min(load.values()) <= 1


@given(COUNTS, st.integers(1, 12))
def test_a_newcomer_moves_nobody(counts: list[int], newcomer: int) -> None:
    limits = [(f"c{number}", str(count)) for number, count in enumerate(counts)]
    before = pinning.balance(limits, range(8))
    after = pinning.balance([*limits, ("new", str(newcomer))], range(8))
    assert {name: after[name] for name in before} == before


def test_fixed_sets_count() -> None:
    limits = [("a", "1"), ("fixed", "0-1"), ("none", ""), ("lost", "70-80"), ("b", "2")]
    assert pinning.balance(limits, range(4)) == {"fixed": "0-1", "a": "2", "b": "0,3"}


def test_sets_as_text() -> None:
    assert pinning.format_cpus([]) == ""
    assert pinning.format_cpus([3, 1, 2, 7, 1]) == "1-3,7"
