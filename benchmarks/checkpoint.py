"""Measure what it costs to save the memory of an instance, and to take it up again.

    python -m benchmarks.checkpoint [--image debian/13] [--runs 5] [--memory 512] [--markdown FILE]

A lxpyd in a directory of its own, removed again: an instance that is idle, and one with a process
that has touched `--memory` MiB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.images import distributions
from tests.support import processes
from tests.support.daemon import Daemon, install_commands

MIB = 1 << 20
NAME = "bench"
REST_S = 4.0  # until services have read what came to them at their start
# Each string is made at run time, or perl would share one.
_HOG = "my @all; push @all, chr($_ % 256) x 1048576 for 1..{}; open F, '>/run/touched'; sleep"


@dataclass
class Figures:
    """What was measured of one instance: values by what they are of."""

    title: str
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, what: str, value: float) -> None:
        self.values.setdefault(what, []).append(value)
        print(f"  {self.title:<24} {what:<28} {value:9.3f}", file=sys.stderr, flush=True)


class Bench:
    """Takes the figures of one instance after the other."""

    def __init__(self, daemon: Daemon, image: str, runs: int) -> None:
        self.daemon = daemon
        self.image = image
        self.runs = runs

    def measure(self, title: str, memory_mib: int) -> Figures:
        """Stop and start, snapshot and restore an instance, `runs` times."""
        figures = Figures(title)
        self.daemon.lxpy("launch", self.image, NAME)
        try:
            settle(self.daemon, memory_mib)
            for _ in range(self.runs):
                self._once(figures)
        finally:
            self.daemon.delete(NAME)
        return figures

    def _once(self, figures: Figures) -> None:
        daemon, states = self.daemon, self.daemon.directory / "states" / NAME
        os.sync()  # nobody pays for what was written before
        time.sleep(REST_S)
        figures.add("stop --stateful, s", self._time("stop", NAME, "--stateful"))
        figures.add("memory's files, MiB", _size_bytes(states) / MIB)
        figures.add("start, s", self._time("start", NAME))
        time.sleep(REST_S)
        figures.add("snapshot --stateful, s", self._time("snapshot", NAME, "s", "--stateful"))
        snapshot = daemon.api.get(f"/1.0/instances/{NAME}/snapshots/s")
        figures.add("of it frozen, s", snapshot["lxpy"]["frozen_ms"] / 1000)
        figures.add("restore --stateful, s", self._time("restore", NAME, "s", "--stateful"))
        daemon.lxpy("delete", f"{NAME}/s")

    def _time(self, *words: str) -> float:
        before = time.perf_counter()
        self.daemon.lxpy(*words)
        return time.perf_counter() - before


def settle(daemon: Daemon, memory_mib: int) -> None:
    """Wait until an instance has booted and touched its memory."""
    state = ("systemctl", "is-system-running", "--wait")
    processes.wait_until(lambda: daemon.exec(NAME, *state, check=False).stdout.strip(), 60)
    if memory_mib:
        command = f"exec perl -e {_HOG.format(memory_mib)!r}"
        daemon.exec(NAME, "systemd-run", "--quiet", "sh", "-c", command)
        processes.wait_until(
            lambda: daemon.exec(NAME, "ls", "/run/touched", check=False).returncode == 0, 60
        )
    daemon.address(NAME)


def _size_bytes(directory: Path) -> int:
    """What the files take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def table(found: list[Figures]) -> str:
    """Medians, in Markdown."""
    lines = [f"| | {' | '.join(each.title for each in found)} |", f"|---|{'---:|' * len(found)}"]
    for what in found[0].values:
        medians = [f"{statistics.median(each.values[what]):.2f}" for each in found]
        lines.append(f"| {what} | {' | '.join(medians)} |")
    return "\n".join(lines) + "\n"


def arguments(what: str) -> argparse.ArgumentParser:
    """Declare the command line of a benchmark with that docstring."""
    parser = argparse.ArgumentParser(description=what.split("\n", maxsplit=1)[0])
    parser.add_argument("--image", default="debian/13")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", type=int, default=512, help="MiB that the second one touches")
    parser.add_argument("--markdown", type=Path)
    return parser


def with_daemon(use: Callable[[Daemon], str]) -> str:
    """Have a daemon for the length of a call."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="lxpy-bench-") as directory:
        place = Path(directory)
        place.chmod(0o711)
        daemon = Daemon(place / "d", install_commands(place / "bin"))
        try:
            said = use(daemon.start())
            daemon.remove()
        finally:
            daemon.destroy()
    return said


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "").parse_args()
    load = os.getloadavg()[0]

    def use(daemon: Daemon) -> str:
        bench = Bench(daemon, distributions.provide(daemon, options.image), options.runs)
        found = [
            bench.measure("idle", 0),
            bench.measure(f"{options.memory} MiB touched", options.memory),
        ]
        head = f"Linux {os.uname().release}, {options.image}, medians of {options.runs}"
        return f"{head}, load average {load:.1f} at the start.\n\n{table(found)}"

    text = with_daemon(use)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
