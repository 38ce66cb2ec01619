"""What is asked of the supervisor survives its way as JSON."""

from __future__ import annotations

import dataclasses
import json
import typing
from typing import Any

import pytest

from lxpy.runtime import plain
from lxpy.runtime.spec import (
    Directory,
    Disk,
    ExecSpec,
    FileWrite,
    IdMapEntry,
    Limits,
    Node,
    Overlay,
    Spec,
    decode,
    encode,
)

SPEC = Spec(
    name="project_c1",
    hostname="c1",
    rootfs=Overlay(("/images/b", "/images/a"), "/instances/c1"),
    idmap=(IdMapEntry("u", 0, 1000000, 65536), IdMapEntry("g", 0, 1000000, 65536)),
    environment={"A": "b"},
    disks=(Disk("/srv", "/mnt", readonly=True),),
    nodes=(Node("/dev/kvm", "c", 10, 232),),
    files=(FileWrite("/etc/hostname", "c1\n"),),
    limits=Limits(memory_bytes=1 << 30, cpus="0-1"),
    rlimits={"nofile": (1024, 4096)},
    seccomp="2\ndenylist\nmkdir errno 5",
)


@pytest.mark.parametrize(
    "spec", [SPEC, dataclasses.replace(SPEC, rootfs=Directory("/r"), idmap=(), lxcfs="/l")]
)
def test_a_spec_comes_back_as_it_was(spec: Spec) -> None:
    assert decode(Spec, json.loads(json.dumps(encode(spec)))) == spec


def test_a_command_comes_back_as_it_was() -> None:
    spec = ExecSpec("c1", ("sh", "-c", "true"), {"A": "b"}, uid=1000, interactive=True, width=80)
    assert decode(ExecSpec, json.loads(json.dumps(encode(spec)))) == spec


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (Spec, plain.Spec),
        (ExecSpec, plain.ExecSpec),
        (Limits, plain.Limits),
        (Disk, plain.Disk),
        (Node, plain.Node),
        (FileWrite, plain.FileWrite),
        (IdMapEntry, plain.IdMapEntry),
    ],
)
def test_the_supervisor_knows_every_field(kind: Any, shape: Any) -> None:
    assert {field.name for field in dataclasses.fields(kind)} == set(typing.get_type_hints(shape))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(KeyError):
        decode(Limits, {"nonsense": 1})
    with pytest.raises(TypeError, match="no .* fits"):
        decode(Spec, {**encode(SPEC), "rootfs": {"type": "zfs"}})
