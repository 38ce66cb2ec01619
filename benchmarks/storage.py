"""Measure storage beside LXD and Incus: one image, one machine, all of them in turns.

    python -m benchmarks.storage --lxpy DIR --lxd DIR --incus DIR --incus-client FILE \\
        [--pools dir,btrfs] [--only create,copy] [--runs 5] [--json FILE] [--markdown FILE]

Each figure is the wall time of one command of a system's own client, from its start to its end, and
the median of `--runs` runs. Every daemon needs the image under this alias, a profile `bare` without
devices, and the pools named in POOLS. What one system cannot do is told below the table.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from benchmarks.bench import Bench, Figure, facts, number
from benchmarks.targets import PREFIX, Target

MIB = 1024**2
PROFILE = "bare"
#: Pools by driver.
POOLS = {"dir": "default", "btrfs": "btr"}
#: How many times LXD's pace is asked of what does not depend on an instance's size.
COW_GOALS = {"dir": 20.0, "btrfs": 3.0}
STREAM_GOAL = 5.0
SMALL_FILES = 1000

LXC_VERBS = {"snapshot": ["snapshot"], "restore": ["restore"]}
INCUS_VERBS = {"snapshot": ["snapshot", "create"], "restore": ["snapshot", "restore"]}


@dataclass
class System(Target):
    """A daemon and the client it is asked by, which has its own words for snapshots."""

    verbs: dict[str, list[str]] = field(default_factory=lambda: LXC_VERBS)

    def name(self) -> str:
        """A new instance's name: two clients may speak to one daemon."""
        number = super().name().removeprefix(f"{PREFIX}-")
        return f"{PREFIX}-{self.label.replace(' ', '-').lower()}-{number}"

    def forget_snapshot(self, name: str, snapshot: str) -> None:
        self.api.call("DELETE", f"/1.0/instances/{name}/snapshots/{snapshot}")

    def forget_image(self, alias: str) -> None:
        found = self.api.call("GET", f"/1.0/images/aliases/{quote(alias)}")
        self.api.call("DELETE", f"/1.0/images/{found['target']}")


@dataclass
class Samples:
    """Files to be sent, and where those that come back go."""

    directory: Path

    def __post_init__(self) -> None:
        self.big = self.directory / "big"
        self.tree = self.directory / "tree"
        self.back = self.directory / "back"
        self.back.mkdir()
        source = random.Random(1)  # the same in every run
        with self.big.open("wb") as file:
            for _ in range(64):
                file.write(source.randbytes(MIB))
        for index in range(SMALL_FILES):
            folder = self.tree / f"{index // 100}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{index}").write_bytes(source.randbytes(source.randrange(1, 8192)))

    def check(self) -> None:
        """What came back must be what was sent."""
        for file in [self.big, *self.tree.rglob("*")]:
            copy = self.back / file.relative_to(self.directory)
            if file.is_file() and not filecmp.cmp(file, copy, shallow=False):
                raise RuntimeError(f"{copy} differs from what was sent")


class StorageBench(Bench):
    """Takes the figures of one pool after the other."""

    def __init__(self, systems: list[System], runs: int, samples: Samples) -> None:
        super().__init__(list(systems), runs, tiny="", many=0)
        self.systems = systems
        self.samples = samples
        self.driver = ""
        self.stopped: dict[str, str] = {}  # by label: an instance that has run
        self.running: dict[str, str] = {}

    def timed(self, system: System, what: str, *words: str, goal: float | None = None) -> None:
        """Measure one command, when what went before is on the disk."""
        os.sync()
        self.add(system, f"{what}, {self.driver}", system.run(*words), "s", goal)

    def each(self, scenario: Callable[[System], None], runs: int = 0) -> None:
        """Let each system go through it in turn; leave out one that failed, and say so."""
        left = list(self.systems)
        for _ in range(runs or self.runs):
            for system in list(left):
                try:
                    scenario(system)
                except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                    self.note(system, f"{scenario.__name__}: {error}")
                    left.remove(system)

    def note(self, system: System, text: str) -> None:
        line = " ".join(f"{system.label}, {self.driver}: {text}".split())
        print(f"  {line}", file=sys.stderr, flush=True)
        self.notes.append(line)

    @property
    def pool(self) -> str:
        return POOLS[self.driver]

    @property
    def cow_goal(self) -> float:
        return COW_GOALS[self.driver]

    def init(self, system: System) -> str:
        """Create an instance without measuring it."""
        name = system.name()
        system.run("init", system.image, name, "-p", PROFILE, "-s", self.pool)
        return name

    def prepare(self, driver: str) -> None:
        """Make the instances that are copied, saved and read: both have booted once."""
        self.driver = driver

        def made(system: System) -> None:
            for known in (self.stopped, self.running):
                name = self.init(system)
                system.change(name, "start")
                system.wait_booted(name)
                known[system.label] = name
            system.change(self.stopped[system.label], "stop")

        self.each(made, runs=1)

    def leave(self) -> None:
        """Remove what was made, and what failed scenarios have left."""
        for system in self.systems:
            system.clean()

    # -- sections

    def create(self) -> None:
        """From an image that has been used before."""

        def create(system: System) -> None:
            name = system.name()
            words = ("init", system.image, name, "-p", PROFILE, "-s", self.pool)
            self.timed(system, "create", *words, goal=self.cow_goal)
            self.timed(system, "delete", "delete", name)

        self.each(create)

    def copy(self) -> None:
        def copy_stopped(system: System) -> None:
            copy_of(system, "copy, stopped", self.stopped)

        def copy_running(system: System) -> None:
            copy_of(system, "copy, running", self.running)

        def copy_of(system: System, what: str, bases: dict[str, str]) -> None:
            name = system.name()
            words = ("copy", bases[system.label], name)
            self.timed(system, what, *words, goal=self.cow_goal)
            system.delete(name)

        self.each(copy_stopped)
        self.each(copy_running)

    def snapshot(self) -> None:
        """Of an instance that has changed by a megabyte since the last one."""

        def snapshot_running(system: System) -> None:
            name = self.running[system.label]
            write = "head -c 1M /dev/urandom >/root/changed"
            system.run("exec", name, "--", "sh", "-c", write)
            words = (*system.verbs["snapshot"], name, "s")
            self.timed(system, "snapshot, running", *words, goal=self.cow_goal)
            system.forget_snapshot(name, "s")

        def snapshot_stopped(system: System) -> None:
            name = self.stopped[system.label]
            change(system, name, 1)
            words = (*system.verbs["snapshot"], name, "s")
            self.timed(system, "snapshot, stopped", *words, goal=self.cow_goal)
            change(system, name, 2)
            self.timed(system, "restore", *system.verbs["restore"], name, "s")
            system.forget_snapshot(name, "s")

        def change(system: System, name: str, number: int) -> None:
            changed = self.samples.directory / "changed"
            changed.write_bytes(random.Random(number).randbytes(MIB))
            system.run("file", "push", str(changed), f"{name}/root/changed")

        self.each(snapshot_running)
        self.each(snapshot_stopped)

    def publish(self) -> None:
        """As each system compresses by default, and with the same compression for all."""

        def publish_default(system: System) -> None:
            published(system, "publish", STREAM_GOAL)

        def publish_zstd(system: System) -> None:
            published(system, "publish, zstd", None, "--compression", "zstd")

        def published(system: System, what: str, goal: float | None, *options: str) -> None:
            alias = system.name()
            name = self.stopped[system.label]
            self.timed(system, what, "publish", name, "--alias", alias, *options, goal=goal)
            system.forget_image(alias)

        self.each(publish_default, runs=self.fewer)
        self.each(publish_zstd, runs=self.fewer)

    def export(self) -> None:
        """Export to a file, and import of this file."""

        def export_default(system: System) -> None:
            exported(system, "", STREAM_GOAL)

        def export_zstd(system: System) -> None:
            exported(system, ", zstd", None, "--compression", "zstd")

        def exported(system: System, how: str, goal: float | None, *options: str) -> None:
            file, copy = self.samples.directory / "backup", system.name()
            try:
                words = ("export", self.stopped[system.label], str(file), *options)
                self.timed(system, f"export{how}", *words, goal=goal)
                size = file.stat().st_size / MIB
                self.add(system, f"export{how}: size, {self.driver}", size, "MiB", None)
                self.timed(system, f"import{how}", "import", str(file), copy, "-s", self.pool)
            finally:
                file.unlink(missing_ok=True)
            system.delete(copy)

        self.each(export_default, runs=self.fewer)
        self.each(export_zstd, runs=self.fewer)

    def files(self) -> None:
        """Push and pull, to and from an instance that runs; what came back is compared."""
        samples = self.samples

        def push_pull_file(system: System) -> None:
            name = self.running[system.label]
            self.timed(system, "push, 64 MiB", "file", "push", str(samples.big), f"{name}/root/big")
            copy = samples.back / "big"
            copy.unlink(missing_ok=True)
            self.timed(system, "pull, 64 MiB", "file", "pull", f"{name}/root/big", str(copy))

        def push_pull_tree(system: System) -> None:
            name = self.running[system.label]
            system.run("exec", name, "--", "rm", "-rf", "/root/tree")
            subprocess.run(["rm", "-rf", str(samples.back / "tree")], check=True)
            push = ("file", "push", "-r", str(samples.tree), f"{name}/root/")
            self.timed(system, f"push -r, {SMALL_FILES} files", *push)
            pull = ("file", "pull", "-r", f"{name}/root/tree", str(samples.back))
            self.timed(system, f"pull -r, {SMALL_FILES} files", *pull)
            samples.check()

        self.each(push_pull_file)
        self.each(push_pull_tree)

    @property
    def fewer(self) -> int:
        """Runs of what takes long."""
        return max(1, (self.runs + 1) // 2)


SECTIONS = ("create", "copy", "snapshot", "publish", "export", "files")


def table(bench: StorageBench) -> str:
    """The report in Markdown: medians, and how many times as long the others take."""
    labels = [system.label for system in bench.systems]
    others = [label for label in labels[1:] if "lxpy" not in label]
    ratios = [f"{label}/{labels[0]}" for label in others]
    head = ["what", "unit", *labels, *ratios, "goal"]
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * (len(head) - 2)]

    def cells(figure: Figure) -> list[str]:
        medians = [figure.median(label) for label in labels]
        compared = [figure.ratio(labels[0], label) for label in others]
        return [number(value) for value in (*medians, *compared, figure.goal)]

    for figure in bench.figures.values():
        lines.append(f"| {figure.what} | {figure.unit} | {' | '.join(cells(figure))} |")
    return "\n".join(lines)


def systems(options: argparse.Namespace) -> list[System]:
    """Those that were named, lxpy first, once more by LXD's client."""
    found = []
    if options.lxpy:
        found.append(System("lxpy", options.lxpy_client, options.lxpy, options.image))
        if options.lxc:
            found.append(System("lxpy by lxc", "lxc", options.lxpy, options.image))
    if options.lxd:
        found.append(System("LXD", "lxc", options.lxd, options.image))
    if options.incus:
        environment = {"INCUS_DIR": str(options.incus)}
        found.append(
            System(
                "Incus",
                options.incus_client,
                options.incus,
                options.image,
                environment,
                verbs=INCUS_VERBS,
            )  # fmt: skip
        )
    return found


def arguments() -> argparse.ArgumentParser:
    """Declare the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--lxpy", type=Path, help="directory of lxpyd")
    parser.add_argument("--lxpy-client", default="lxpy")
    parser.add_argument("--lxc", action="store_true", help="ask lxpyd by lxc, too")
    parser.add_argument("--lxd", type=Path, help="directory of LXD")
    parser.add_argument("--incus", type=Path, help="directory of Incus")
    parser.add_argument("--incus-client", default="incus")
    parser.add_argument("--image", default="debian/13")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--pools", type=lambda text: text.split(","), default=list(POOLS))
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(SECTIONS))
    parser.add_argument("--scratch", type=Path, help="where files are exported to, and pulled")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser


def measure(bench: StorageBench, options: argparse.Namespace) -> None:
    """Go through the pools and sections."""
    for driver in options.pools:
        # First of all: until this connection has sent something, LXD accepts no other.
        bench.leave()
        bench.prepare(driver)
        for section in SECTIONS:
            if section in options.only:
                load = os.getloadavg()[0]
                print(f"[{driver}: {section}] load {load:.1f}", file=sys.stderr, flush=True)
                getattr(bench, section)()


def report(bench: StorageBench, load: float) -> str:
    """Facts, table, and what did not work."""
    notes = "".join(f"\n- {note}" for note in bench.notes)
    return f"{facts(bench, load)}\n\n{table(bench)}\n" + (f"\nFailed:\n{notes}\n" if notes else "")


def main() -> None:
    """Measure and report."""
    options = arguments().parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="samples-") as directory:
        bench = StorageBench(systems(options), options.runs, Samples(Path(directory)))
        try:
            measure(bench, options)
        finally:
            bench.leave()
            text = report(bench, load)
            print(text)
            if options.markdown:
                options.markdown.write_text(text)
            if options.json:
                content = {figure.what: vars(figure) for figure in bench.figures.values()}
                options.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
