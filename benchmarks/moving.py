"""Measure how long an instance stands still while it moves to another server with its memory.

    python -m benchmarks.moving [--image debian/13] [--runs 5] [--memory 512] [--markdown FILE]

Two lxpyd with directories of their own, the second in a network namespace of its own, both removed
again; the instance goes to and fro. One that is idle, and one that has touched `--memory` MiB.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from benchmarks.checkpoint import NAME, REST_S, Figures, arguments, settle, table
from tests.images import distributions
from tests.support.daemon import Daemon, install_commands

_NAMESPACE = f"lxpy-bench{os.getpid()}"


class Pair:
    """Two servers, and a client to which they are the remotes "a" and "b"."""

    def __init__(self, servers: dict[str, Daemon], conf: Path) -> None:
        self.servers = servers
        first = servers["a"]
        self._environment = {**first.environment, "LXPY_CONF": str(conf)}
        remotes = {
            name: {"addr": f"unix://{daemon.socket}", "public": False}
            for name, daemon in servers.items()
        }
        conf.mkdir()
        (conf / "config.yml").write_text(yaml.safe_dump({"remotes": remotes}))

    def measure(self, title: str, image: str, memory_mib: int, runs: int) -> Figures:
        """Launch an instance and move it `runs` times."""
        figures = Figures(title)
        self.servers["a"].lxpy("launch", image, NAME)
        try:
            settle(self.servers["a"], memory_mib)
            for number in range(runs):
                ends = ("a", "b") if number % 2 == 0 else ("b", "a")
                os.sync()
                time.sleep(REST_S)
                self._move(figures, *ends)
        finally:
            for daemon in self.servers.values():
                if NAME in daemon.instances():
                    daemon.delete(NAME)
        return figures

    def _move(self, figures: Figures, source: str, target: str) -> None:
        words = ("lxpy", "move", f"{source}:{NAME}", f"{target}:", "--live")
        before = time.perf_counter()
        done = subprocess.run(
            words, env=self._environment, check=True, capture_output=True, text=True
        )
        took = time.perf_counter() - before
        still = re.search(r"stood still for ([\d.]+) s", done.stdout + done.stderr)
        assert still, done
        figures.add("of it standing still, s", float(still[1]))
        figures.add("move --live, s", took)
        state = self.servers[target].exec(NAME, "systemctl", "is-system-running")
        assert state.stdout.strip() == "running"


@contextmanager
def _namespace() -> Iterator[str]:
    subprocess.run(["ip", "netns", "add", _NAMESPACE], check=True)
    try:
        subprocess.run(["ip", "-n", _NAMESPACE, "link", "set", "lo", "up"], check=True)
        yield _NAMESPACE
    finally:
        subprocess.run(["ip", "netns", "delete", _NAMESPACE], check=True)


@contextmanager
def _daemon(directory: Path, commands: Path, namespace: str = "") -> Iterator[Daemon]:
    daemon = Daemon(directory, commands, namespace)
    try:
        yield daemon.start()
        daemon.remove()
    finally:
        daemon.destroy()


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "").parse_args()
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        place = Path(
            stack.enter_context(tempfile.TemporaryDirectory("", "lxpy-bench-", "/var/tmp"))
        )
        place.chmod(0o711)
        commands = install_commands(place / "bin")
        far = stack.enter_context(_namespace())
        servers = {
            "a": stack.enter_context(_daemon(place / "a", commands)),
            "b": stack.enter_context(_daemon(place / "b", commands, far)),
        }
        pair = Pair(servers, place / "conf")
        image = distributions.provide(servers["a"], options.image)
        found = [
            pair.measure("idle", image, 0, options.runs),
            pair.measure(f"{options.memory} MiB touched", image, options.memory, options.runs),
        ]
    head = f"Linux {os.uname().release}, {options.image}, medians of {options.runs}"
    text = f"{head}, load average {load:.1f} at the start.\n\n{table(found)}"
    sys.stdout.write(text)
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
