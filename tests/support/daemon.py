"""A real lxpyd in a directory of its own, with its own supervisor, bridge and control group."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support import processes
from tests.support.api import Api, ApiError

REPOSITORY = Path(__file__).resolve().parents[2]
CGROUPS = Path("/sys/fs/cgroup")


def install_commands(directory: Path) -> Path:
    """Write the commands as `make install` does, but running this source tree."""
    site = next(path for path in sys.path if path.endswith("site-packages"))
    launchers = REPOSITORY / "packaging/launchers.sh"
    subprocess.run([launchers, sys.executable, f"{REPOSITORY}:{site}", directory], check=True)
    return directory


class Daemon:
    """Start, kill, restart and remove an installation; call it through API and command line."""

    def __init__(self, directory: Path, commands: Path, namespace: str = "") -> None:
        """Prepare one. `namespace`: that of the network it lives in, as `ip netns` names it."""
        self.directory = directory
        self._enter = ["nsenter", f"--net=/run/netns/{namespace}", "--"] if namespace else []
        self.commands = commands
        self.socket = directory / "unix.socket"
        self.api = Api(self.socket)
        self.log = directory.with_name(f"{directory.name}.log")
        self.cgroup = ""
        self.bridges: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count(1)
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        conf = directory.with_name(f"{directory.name}.conf")
        conf.mkdir(exist_ok=True)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("LXD_", "LXPY_"))},
            "PATH": f"{commands}:{os.environ['PATH']}",
            "LXPY_DIR": str(directory),
            "LXD_DIR": str(directory),
            "LXPY_CONF": str(conf),
            "LXD_CONF": str(conf),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    # -- life

    @property
    def pid(self) -> int:
        assert self._process is not None, "the daemon was not started"
        return self._process.pid

    @property
    def supervisors(self) -> list[int]:
        """Supervisors of this installation: one, or none when it was shut down."""
        own = f"--run-dir {self.directory}/"
        return [pid for pid, line in processes.matching(own).items() if "supervisor" in line]

    @property
    def supervisor(self) -> int:
        (pid,) = self.supervisors
        return pid

    def start(self, *, wait: bool = True, timeout_s: float = 30) -> Daemon:
        """Start lxpyd in the foreground of a session of its own."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._enter, self.commands / "lxpyd", "--debug"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        if wait:
            self.wait_ready(timeout_s)
        return self

    def wait_ready(self, timeout_s: float = 30) -> None:
        """Wait for the API's answer; instances may still be starting."""

        def ready() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError(f"lxpyd ended ({self._process.returncode}):\n{self.tail()}")
            try:
                return self.api.raw("GET", "/1.0")[0] == 200
            except OSError:
                return False

        processes.wait_until(ready, timeout_s, f"lxpyd ready\n{self.tail()}")
        self._learn()

    def _learn(self) -> None:
        line = processes.command_line(self.supervisor)
        found = re.search(r"--cgroup (\S+)", line)
        self.cgroup = found.group(1) if found else ""
        self.bridges |= {
            n["name"] for n in self.api.get("/1.0/networks?recursion=1") if n["managed"]
        }

    def stop(self, timeout_s: float = 30) -> None:
        """SIGTERM: the daemon ends, instances go on."""
        self._end(signal.SIGTERM, timeout_s)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL, 10)

    def restart(self) -> None:
        """Stop and start: what a package upgrade does."""
        self.stop()
        self.start()

    def _end(self, signum: int, timeout_s: float) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signum)
        self._process.wait(timeout_s)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def shutdown(self, *, force: bool = True, timeout_s: float = 60) -> None:
        """Stop the instances, the supervisor and the daemon, as `lxpy shutdown` does."""
        if not self.running:
            self.start()
        self.api.put("/internal/shutdown", {"force": force, "timeout": int(timeout_s)})
        assert self._process is not None
        self._process.wait(timeout_s)
        try:
            processes.wait_until(lambda: not self.remains(), 10)
        except AssertionError:
            raise AssertionError(f"left after a shutdown: {self.remains()}") from None

    def remains(self) -> list[str]:
        """What there is of it on this host, other than its directory."""
        own = {f"lxpy_{bridge}" for bridge in self.bridges}
        return [
            *processes.matching(f"{self.directory}/").values(),
            *(target for target in mounts_below(self.directory) if target != str(self.directory)),
            *(str(path) for path in cgroup_directories(self.cgroup) if self.cgroup),
            *(link for link in links() if link in self.bridges),
            *(table for table in nft_tables() if table.split()[-1] in own),
        ]

    def tail(self, lines: int = 40) -> str:
        """The end of the daemon's log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    # -- use

    def run(self, *command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program against this daemon; text in, text out; raises unless it succeeds."""
        options = {"check": True, "timeout": 120, "stdin": subprocess.DEVNULL} | options
        if "input" in options:
            del options["stdin"]
        check = options.pop("check")
        done = subprocess.run(
            [str(word) for word in command],
            env=self.environment | options.pop("env", {}),
            text=True,
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=options.pop("stderr", subprocess.PIPE),
            **options,
        )
        if check and done.returncode:
            text = f"{done.stdout or ''}{done.stderr or ''}".strip()
            raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}: {text}")
        return done

    def lxpy(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run our command line."""
        return self.run(self.commands / "lxpy", *words, **options)

    def lxc(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run LXD's own client, unmodified."""
        return self.run("lxc", *words, **options)

    def exec(self, name: str, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in an instance through our command line."""
        return self.lxpy("exec", name, "--", *command, **options)

    def out(self, name: str, *command: str, **options: Any) -> str:
        """What a command in an instance prints."""
        return self.exec(name, *command, **options).stdout.strip()

    def name(self, tag: str = "c") -> str:
        """A name not used before."""
        return f"{tag}{next(self._names)}"

    def bridge_name(self) -> str:
        """A name for a network, unique on this host."""
        name = f"lt{os.getpid() % 100000:05}{next(self._names)}"
        self.bridges.add(name)
        return name

    def state(self, name: str) -> dict[str, Any]:
        return self.api.get(f"/1.0/instances/{name}/state")  # type: ignore[no-any-return]

    def status(self, name: str) -> str:
        return str(self.api.get(f"/1.0/instances/{name}")["status"])

    def init_pid(self, name: str) -> int:
        """The host's pid of the instance's PID 1, 0 when it does not run."""
        return max(0, int(self.state(name)["pid"]))

    def address(self, name: str, *, family: str = "inet", timeout_s: float = 20) -> str:
        """Wait for a global address on eth0."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            card = (self.state(name)["network"] or {}).get("eth0") or {}
            for address in card.get("addresses") or []:
                if address["family"] == family and address["scope"] == "global":
                    return str(address["address"])
            time.sleep(0.05)
        raise AssertionError(f"{name}: no {family} address within {timeout_s} s")

    def wait_status(self, name: str, status: str, timeout_s: float = 20) -> None:
        processes.wait_until(
            lambda: self.status(name) == status, timeout_s, f"{name} {status}: {self.status(name)}"
        )

    def instances(self) -> list[str]:
        return [str(url).rsplit("/", 1)[1] for url in self.api.get("/1.0/instances")]

    def delete(self, name: str) -> None:
        """Delete an instance in whatever state it is; it may be gone already."""
        try:
            if self.status(name) != "Stopped":
                body = {"action": "stop", "timeout": 30, "force": True}
                self.api.put(f"/1.0/instances/{name}/state", body)
            self.api.delete(f"/1.0/instances/{name}")
        except ApiError:
            # An ephemeral one goes by itself; what stays the leak check reports.
            if name in self.instances():
                self.api.delete(f"/1.0/instances/{name}")

    # -- the end

    def remove(self) -> None:
        """Take everything down, by force where asking nicely fails, and delete the directory."""
        problem: BaseException | None = None
        try:
            self.shutdown()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            problem = error
        self.destroy()
        if problem is not None:
            raise AssertionError(f"shutdown failed: {problem}\n{self.tail()}") from problem

    def power_cut(self) -> None:
        """Take away everything that a reboot of the host takes away; the directory stays."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        for pid in self.supervisors:
            processes.end(pid, signal.SIGKILL)
        if self.cgroup:
            self._destroy_cgroups()
        for pid in processes.matching(f"{self.directory}/"):
            processes.end(pid, signal.SIGKILL)
        self._delete_bridges()
        self._unmount()
        # What the supervisor has noted was in a boot before.
        for entry in self.directory.glob("run/journal/*"):
            entry.write_text(json.dumps({**json.loads(entry.read_text()), "boot": "another"}))

    def destroy(self) -> None:
        """Remove whatever is left of it on this host, without its help."""
        self.power_cut()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _delete_bridges(self) -> None:
        for bridge in self.bridges:
            subprocess.run(["ip", "link", "delete", bridge], capture_output=True, check=False)
            for table in nft_tables():
                if table.split()[-1] in (f"lxpy_{bridge}", f"lxpy-{bridge}"):
                    subprocess.run(["nft", "delete", "table", *table.split()], check=False)

    def _destroy_cgroups(self) -> None:
        for pid in processes.in_cgroup(self.cgroup):
            processes.end(pid, signal.SIGKILL)
        for group in cgroup_directories(self.cgroup):
            try:
                group.rmdir()
            except OSError:
                continue

    def _unmount(self) -> None:
        for target in mounts_below(self.directory):
            subprocess.run(["umount", "--lazy", target], check=False)


def cgroup_directories(group: str) -> list[Path]:
    """All directories of a control group, in every hierarchy, deepest first."""
    roots = [CGROUPS, *(entry for entry in CGROUPS.iterdir() if entry.is_dir())]
    found = {Path(top) for root in roots for top, _, _ in os.walk(root / group)}
    return sorted(found, key=lambda path: (-len(path.parts), path))


def mounts_below(directory: Path) -> list[str]:
    """Mount points at or below a directory, latest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    targets = [line.split()[4].replace("\\040", " ") for line in lines]
    return [t for t in reversed(targets) if Path(t).is_relative_to(directory)]


def nft_tables() -> set[str]:
    """The firewall's tables, as "family name"."""
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return {line.removeprefix("table ") for line in done.stdout.splitlines()}


def links(masters: Sequence[str] = ()) -> dict[str, str]:
    """Host links with the bridge each belongs to; all, or those of some bridges."""
    found = {}
    for entry in Path("/sys/class/net").iterdir():
        try:
            master = (entry / "master").resolve(strict=True).name
        except OSError:
            master = ""
        if not masters or master in masters:
            found[entry.name] = master
    return found
