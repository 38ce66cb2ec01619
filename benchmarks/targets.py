"""A daemon to be measured: its clients, its API, its processes."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rest import Connection
from tests.support import processes

PREFIX = "bench"


@dataclass
class Target:
    """One daemon. `client` is the command line measured, `directory` its LXD_DIR or LXPY_DIR."""

    label: str
    client: str
    directory: Path
    image: str
    environment: dict[str, str] = field(default_factory=dict)
    _number: int = 0

    def __post_init__(self) -> None:
        self.socket = str(self.directory / "unix.socket")
        self.api = Connection(self.socket)
        self.pid = self.api.peer
        self.environment = {
            **os.environ,
            "LXD_DIR": str(self.directory),
            "LXPY_DIR": str(self.directory),
            **self.environment,
        }

    def name(self) -> str:
        """A new instance's name."""
        self._number += 1
        return f"{PREFIX}-{self._number}"

    def argv(self, *words: str, client: str | None = None) -> list[str]:
        return [*shlex.split(client or self.client), *words]

    def run(self, *words: str, client: str | None = None) -> float:
        """Run the client, which must succeed; seconds."""
        before = time.perf_counter()
        done = subprocess.run(
            self.argv(*words, client=client),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=300,
        )
        took = time.perf_counter() - before
        if done.returncode:
            text = done.stderr.decode(errors="replace").strip()
            raise RuntimeError(f"{self.label}: {' '.join(words)}: {text[-300:]}")
        return took

    def crowd(self, commands: list[list[str]]) -> float:
        """Run many clients at once; seconds until the last has ended well."""
        before = time.perf_counter()
        crowd = [
            subprocess.Popen(
                self.argv(*words),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            for words in commands
        ]
        errors = [process.communicate(timeout=600)[1] for process in crowd]
        took = time.perf_counter() - before
        for process, error in zip(crowd, errors, strict=True):
            if process.returncode:
                raise RuntimeError(f"{self.label}: {error.decode(errors='replace')[-300:]}")
        return took

    # -- through the API, for what is not measured

    def create(self, name: str, image: str | None = None, **fields: Any) -> None:
        source = {"type": "image", "alias": image or self.image}
        self.api.call("POST", "/1.0/instances", {"name": name, "source": source, **fields})

    def change(self, name: str, action: str, connection: Connection | None = None) -> None:
        body = {"action": action, "timeout": 30, "force": action == "stop"}
        (connection or self.api).call("PUT", f"/1.0/instances/{name}/state", body)

    def launch(self, image: str | None = None) -> str:
        name = self.name()
        self.create(name, image)
        self.change(name, "start")
        return name

    def delete(self, name: str) -> None:
        if self.api.call("GET", f"/1.0/instances/{name}")["status"] != "Stopped":
            self.change(name, "stop")
        self.api.call("DELETE", f"/1.0/instances/{name}")

    def names(self) -> list[str]:
        urls = self.api.call("GET", "/1.0/instances")
        names = [str(url).rsplit("/", 1)[1] for url in urls]
        return [name for name in names if name.startswith(f"{PREFIX}-")]

    def clean(self) -> None:
        """Delete every instance made here."""
        for name in self.names():
            self.delete(name)

    def wait_booted(self, name: str) -> None:
        """Until systemd inside has started everything; asked by the client's own exec."""
        argv = self.argv("exec", name, "--", "systemctl", "is-system-running", "--wait")
        for _ in range(600):
            done = subprocess.run(
                argv, env=self.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
            if done.stdout.strip() in ("running", "degraded"):
                return
            time.sleep(0.01)
        raise RuntimeError(f"{self.label}: {name} did not boot: {done.stdout} {done.stderr}")

    # -- what it costs

    def processes(self) -> dict[int, str]:
        """The daemon and its helpers on the host: those that name its directory."""
        found = processes.matching(str(self.directory))
        mine = {pid for pid, line in found.items() if "benchmarks" in line}
        found[self.pid] = processes.command_line(self.pid)
        return {pid: line for pid, line in found.items() if pid not in mine}

    def memory(self) -> dict[str, int]:
        """Proportional set sizes in bytes: daemon, supervisor and helpers, all together."""
        sizes = {"daemon": 0, "helpers": 0}
        for pid, line in self.processes().items():
            if "dnsmasq" in line or "lxcfs" in line:
                continue
            sizes["daemon" if pid == self.pid else "helpers"] += pss_bytes(pid)
        return sizes | {"all": sum(sizes.values())}


def pss_bytes(pid: int) -> int:
    """A process' memory with shared pages counted in part."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line[:4] == "Pss:")
