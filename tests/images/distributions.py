"""Full distributions for tests: built once by lxpy's own recipe, cached on this host."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.support.daemon import Daemon

CACHE = Path(os.environ.get("LXPY_TESTS_CACHE", "/var/cache/lxpy-tests"))
FRESH_S = 14 * 24 * 3600


def provide(daemon: Daemon, name: str) -> str:
    """Make sure that the daemon has the image `name` ("debian/13") under this alias.

    The first time, and again when two weeks have passed, the daemon builds it.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    base = CACHE / name.replace("/", "-")
    found = [
        p for p in CACHE.glob(f"{base.name}.tar*") if p.stat().st_mtime > time.time() - FRESH_S
    ]
    if found:
        daemon.lxpy("image", "import", found[0], "--alias", name, timeout=300)
        return name
    daemon.lxpy("image", "build", name, "--alias", name, timeout=900)
    part = CACHE / f".{base.name}.{os.getpid()}"
    daemon.lxpy("image", "export", name, part, timeout=300)
    (exported,) = CACHE.glob(f"{part.name}*")
    for old in CACHE.glob(f"{base.name}.tar*"):
        old.unlink()
    exported.rename(CACHE / exported.name.replace(part.name, base.name))
    return name
