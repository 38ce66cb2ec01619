"""Measure lxpy beside LXD: the same image, the same machine, the two in turns.

    python -m benchmarks.bench --lxpy DIR --lxd DIR --image debian/13 [--only start,exec] \\
        [--json FILE] [--markdown FILE]

Each figure is the median of `--runs` runs. Both daemons need the image under this alias, a default
profile with a root disk on a directory pool, and a network card.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.rest import Connection
from benchmarks.targets import Target

MIB = 1024**2


@dataclass
class Figure:
    """One line of the report: values by target, and the ratio to be reached."""

    what: str
    unit: str
    goal: float | None = None  # how many times better than LXD
    values: dict[str, list[float]] = field(default_factory=dict)

    def median(self, label: str) -> float | None:
        values = self.values.get(label)
        return statistics.median(values) if values else None

    def ratio(self, ours: str, theirs: str) -> float | None:
        """How many times better ours is; None without both."""
        a, b = self.median(ours), self.median(theirs)
        if not a or not b:
            return None
        return a / b if self.unit.endswith("/s") else b / a


class Bench:
    """Takes the figures."""

    def __init__(self, targets: list[Target], runs: int, tiny: str, many: int) -> None:
        self.targets = targets
        self.runs = runs
        self.tiny = tiny
        self.many = many
        self.figures: dict[str, Figure] = {}
        self.notes: list[str] = []

    def add(self, target: Target, what: str, value: float, unit: str, goal: float | None) -> None:
        figure = self.figures.setdefault(what, Figure(what, unit, goal))
        figure.values.setdefault(target.label, []).append(value)
        print(f"  {target.label:<6} {what:<52} {value:10.4f} {unit}", file=sys.stderr, flush=True)

    def in_turns(
        self, what: str, once: Callable[[Target], float], goal: float | None = None, runs: int = 0
    ) -> None:
        """Measure seconds on each target in turn, so that the machine's load is the same."""
        for _ in range(runs or self.runs):
            for target in self.targets:
                self.add(target, what, once(target), "s", goal)

    # -- sections

    def launch(self) -> None:
        """Launch, until the command returns and until systemd is up."""
        for target in self.targets:
            target.delete(target.launch())  # the image is unpacked now

        def launch(target: Target) -> float:
            name = target.name()
            took = target.run("launch", target.image, name)
            target.delete(name)
            return took

        def boot(target: Target) -> float:
            name = target.name()
            before = time.perf_counter()
            target.run("launch", target.image, name)
            target.wait_booted(name)
            took = time.perf_counter() - before
            target.delete(name)
            return took

        self.in_turns("launch", launch, goal=20)
        self.in_turns("launch to systemd up", boot, goal=4)

    def start(self) -> None:
        """Start, stop, restart, pause of one instance, by the command line."""
        names = {target.label: target.launch() for target in self.targets}

        def verb(*words: str) -> Callable[[Target], float]:
            return lambda target: target.run(*words, names[target.label])

        for _ in range(self.runs):
            self.in_turns("stop --force", verb("stop", "--force"), goal=20, runs=1)
            self.in_turns("start", verb("start"), goal=6, runs=1)
        self.in_turns("restart --force", verb("restart", "--force"))
        for target in self.targets:
            target.wait_booted(names[target.label])
        for _ in range(self.runs):
            self.in_turns("pause", verb("pause"), runs=1)
            self.in_turns("resume", verb("start"), runs=1)
        for _ in range(self.runs):
            self.in_turns("stop, clean", verb("stop"), runs=1)
            for target in self.targets:
                target.change(names[target.label], "start")
                target.wait_booted(names[target.label])
        for target in self.targets:
            target.delete(names[target.label])

    def exec(self) -> None:
        """exec of `true`: own clients, the same client, twenty at once."""
        names = {target.label: target.launch() for target in self.targets}
        for target in self.targets:
            target.wait_booted(names[target.label])

        def own(target: Target) -> float:
            return target.run("exec", names[target.label], "--", "true")

        def same(target: Target) -> float:
            return target.run("exec", names[target.label], "--", "true", client="lxc")

        def crowd(target: Target) -> float:
            return target.crowd([["exec", names[target.label], "--", "true"]] * 20)

        # `lxpy exec` may take 1.5 times as long as `lxc exec`.
        self.in_turns("exec -- true, own client", own, goal=1 / 1.5, runs=self.runs * 4)
        self.in_turns("exec -- true, lxc on both", same, goal=1, runs=self.runs * 4)
        self.in_turns("20 x exec -- true at once", crowd)
        for target in self.targets:
            target.delete(names[target.label])

    def parallel(self) -> None:
        """Ten launches at once."""

        def ten(target: Target) -> float:
            names = [target.name() for _ in range(10)]
            took = target.crowd([["launch", target.image, name] for name in names])
            for name in names:
                target.delete(name)
            return took

        self.in_turns("10 launches at once", ten, goal=20, runs=max(2, self.runs // 2))

    def rest(self) -> None:
        """Memory and requests per second with twenty instances."""
        for target in self.targets:
            idle = target.memory()
            names = [target.launch() for _ in range(20)]
            for name in names:
                target.wait_booted(name)
            full = target.memory()
            each = (full["all"] - idle["all"]) / 20 / MIB
            # Below what can be measured it is as good as nothing, and still no zero.
            self.add(target, "host memory for each instance", max(each, 0.001), "MiB", None)
            self.add(target, "daemon and helpers, none running", idle["all"] / MIB, "MiB", None)
            self.add(target, "daemon and helpers, 20 running", full["all"] / MIB, "MiB", None)
        urls = {
            "GET /1.0": ("/1.0", None),
            "GET /1.0/instances": ("/1.0/instances", None),
            "GET /1.0/instances?recursion=1": ("/1.0/instances?recursion=1", 3),
            "GET /1.0/instances?recursion=2": ("/1.0/instances?recursion=2", 3),
        }
        for _ in range(self.runs):
            for what, (url, goal) in urls.items():
                for target in self.targets:
                    rate = requests_per_second(target, url)
                    self.add(target, f"{what}, 20 running", rate, "requests/s", goal)
        self.in_turns("list, 20 running", lambda target: target.run("list"))
        for target in self.targets:
            target.clean()

    def crowded(self) -> None:
        """Many instances of a tiny image, eight starts in flight: rate and memory to the end."""
        target = self.targets[0]
        before = target.memory()["all"]
        names = [target.name() for _ in range(self.many)]
        ends: list[float] = []

        def launch(name: str) -> None:
            connection = Connection(target.socket)
            source = {"type": "image", "alias": self.tiny}
            connection.call("POST", "/1.0/instances", {"name": name, "source": source})
            target.change(name, "start", connection)
            ends.append(time.perf_counter())

        start = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(launch, names))
        quarter = max(1, self.many // 4)
        first = quarter / (ends[quarter - 1] - start)
        last = quarter / (ends[-1] - ends[-quarter - 1])
        whole = self.many / (ends[-1] - start)
        what = f"{self.many} launches, eight at once"
        self.add(target, what, whole, "launches/s", None)
        self.add(target, f"{what}: the first quarter", first, "launches/s", None)
        self.add(target, f"{what}: the last quarter", last, "launches/s", None)
        each = (target.memory()["all"] - before) / self.many / MIB
        self.add(target, f"{what}: host memory for each", max(each, 0.0001), "MiB", None)
        for name in (names[0], names[-1]):
            took = min(target.run("exec", name, "--", "true") for _ in range(self.runs))
            self.add(target, f"exec -- true with {self.many} running", took, "s", None)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: delete(target, name), names))


def delete(target: Target, name: str) -> None:
    """Delete over a connection of its own: for threads."""
    connection = Connection(target.socket)
    target.change(name, "stop", connection)
    connection.call("DELETE", f"/1.0/instances/{name}")


def requests_per_second(target: Target, url: str, seconds: float = 1.0) -> float:
    """How often one client gets an answer."""
    connection = Connection(target.socket)
    connection.request("GET", url)
    count, start = 0, time.perf_counter()
    while (now := time.perf_counter()) - start < seconds:
        status, _ = connection.request("GET", url)
        if status != 200:
            raise RuntimeError(f"{target.label}: GET {url}: {status}")
        count += 1
    return count / (now - start)


SECTIONS = ("launch", "start", "exec", "parallel", "rest", "crowded")


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table(bench: Bench) -> str:
    """The report in Markdown."""
    labels = [target.label for target in bench.targets]
    head = f"| what | unit | {' | '.join(labels)} | times better | goal |"
    lines = [head, "|---|---|" + "---:|" * (len(labels) + 2)]
    for figure in bench.figures.values():
        medians = " | ".join(number(figure.median(label)) for label in labels)
        ratio = figure.ratio(labels[0], labels[-1]) if len(labels) > 1 else None
        goal = number(figure.goal)
        lines.append(f"| {figure.what} | {figure.unit} | {medians} | {number(ratio)} | {goal} |")
    return "\n".join(lines)


def facts(bench: Bench, load: float) -> str:
    """What the figures were taken on."""
    versions = []
    for target in bench.targets:
        server = target.api.call("GET", "/1.0")["environment"]
        # What lxpy is compatible with is no version of its own.
        version = server.get("lxpy_version", server["server_version"])
        versions.append(f"{target.label} {version}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} processors, {memory:.0f} GiB, "
        f"Linux {platform.release()}, {', '.join(versions)}, image {bench.targets[0].image}, "
        f"medians of {bench.runs}, load average {load:.1f} at the start."
    )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--lxpy", type=Path, help="directory of lxpyd")
    parser.add_argument("--lxpy-client", default="lxpy")
    parser.add_argument("--lxd", type=Path, help="directory of LXD")
    parser.add_argument("--image", default="debian/13")
    parser.add_argument("--tiny", default="tiny", help="image of the section `crowded`")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--many", type=int, default=200)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(SECTIONS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    targets = []
    if options.lxpy:
        targets.append(Target("lxpy", options.lxpy_client, options.lxpy, options.image))
    if options.lxd:
        targets.append(Target("LXD", "lxc", options.lxd, options.image))
    if not targets:
        parser.error("give --lxpy, --lxd or both")
    bench = Bench(targets, options.runs, options.tiny, options.many)
    load = os.getloadavg()[0]
    for target in targets:
        target.clean()
    try:
        for section in SECTIONS:
            if section in options.only:
                print(f"[{section}] load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
                getattr(bench, section)()
    finally:
        for target in targets:
            target.clean()
        report = f"{facts(bench, load)}\n\n{table(bench)}\n"
        print(report)
        if options.markdown:
            options.markdown.write_text(report)
        if options.json:
            content = {figure.what: vars(figure) for figure in bench.figures.values()}
            options.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
