"""Each extension that the server lists is one of LXD's or says that it is ours, and has a proof.

lxd-5.0.2-extensions.txt is what LXD 5.0.2 lists. proofs.txt names a test for each of ours:
"unit/services/volumes::a_schedule" is test_a_schedule in tests/unit/services/test_volumes.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lxpy.api.extensions import EXTENSIONS

HERE = Path(__file__).parent
TESTS = HERE.parents[1]
THEIRS = set((HERE / "lxd-5.0.2-extensions.txt").read_text().split())
#: names that LXD gave the same things after 5.0.2
LATER = {
    "container_syscall_intercept_sysinfo",
    "custom_volume_iso",
    "instance_ready_state",
    "storage_volumes_created_at",
    "storage_volumes_all_projects",
    "remote_token_expiry",
    "metrics_authentication",
}
PROOFS = dict(line.split() for line in (HERE / "proofs.txt").read_text().splitlines())


def test_names() -> None:
    strange = {each for each in EXTENSIONS if each != "lxpy" and not each.startswith("lxpy_")}
    assert strange - THEIRS - LATER == set()


def test_every_one_has_a_proof() -> None:
    assert EXTENSIONS.keys() == PROOFS.keys()


@pytest.mark.parametrize("proof", sorted(set(PROOFS.values())))
def test_the_proof_is_there(proof: str) -> None:
    path, _, name = proof.partition("::")
    directory, _, module = path.rpartition("/")
    text = (TESTS / directory / f"test_{module}.py").read_text()
    assert f"def test_{name}(" in text if name else "def test_" in text
