"""Overlays: other options and attributes in a user namespace."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from lxpy.kernel import namespaces, overlay

TOLD = """
import json
from lxpy.kernel import overlay
print(json.dumps([overlay.attribute("nlink"), overlay.options(), overlay.read_only_options()]))
"""


@pytest.mark.skipif(namespaces.is_nested(), reason="this is no host")
def test_on_a_host() -> None:
    assert overlay.attribute("nlink") == "trusted.overlay.nlink"
    assert overlay.options()["index"] == overlay.options()["nfs_export"] == "on"
    assert overlay.options(index=False)["index"] == "off"
    assert overlay.read_only_options() == {"redirect_dir": "follow"}


def test_in_a_user_namespace() -> None:
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", TOLD]
    done = subprocess.run(command, capture_output=True, text=True, cwd=os.getcwd())
    if "unshare" in done.stderr:
        pytest.skip(done.stderr)
    options = {"userxattr": None}
    assert json.loads(done.stdout) == ["user.overlay.nlink", options, options]
