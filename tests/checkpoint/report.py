"""What was found, kept from run to run, and the page that tells it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from typing import TypedDict

from lxpy.services.memory.criu import PREFIX
from tests.images.distributions import CACHE
from tests.support.daemon import REPOSITORY

PAGE = REPOSITORY / "docs/checkpoint-support.md"
_FOUND = CACHE / "checkpoint-matrix"
_BEGIN, _END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
OPERATIONS = ("snapshot and restore", "stop and start", "fork")


class Cell(TypedDict):
    """One guest in one set-up: for each operation "" or why not, and what took how long.

    `untried` is why there was no guest, `refused` why the memory cannot be saved, as it is told.
    """

    kernel: str
    day: str
    failures: dict[str, str]
    refused: str
    untried: str
    seconds: dict[str, float]


def keep(guest: str, setup: str, cell: Cell) -> None:
    """Note what was found for a cell; what was known of it is replaced."""
    _FOUND.mkdir(parents=True, exist_ok=True)
    path = _FOUND / f"{guest}, {setup}.json"
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(cell))
    new.rename(path)


def _read() -> dict[str, Cell]:
    """Return all cells that are known, by "guest, setup"."""
    return {path.stem: json.loads(path.read_text()) for path in _FOUND.glob("*.json")}


def new_cell() -> Cell:
    return Cell(
        kernel=os.uname().release,
        day=time.strftime("%Y-%m-%d"),
        failures={},
        refused="",
        untried="",
        seconds={},
    )


def write_page(guests: Sequence[str], setups: Sequence[str]) -> None:
    """Put the table of all that is known between the marks of the page."""
    found = _read()
    before, _, rest = PAGE.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    PAGE.write_text(f"{before}{_BEGIN}\n{_matrix(found, guests, setups)}{_END}{after}")


def _matrix(found: dict[str, Cell], guests: Sequence[str], setups: Sequence[str]) -> str:
    reasons: list[str] = []
    lines = [f"Linux {_kernels(found)}, {_criu()}.", ""]
    lines += [f"| | {' | '.join(guests)} |", f"|---|{'---|' * len(guests)}"]
    for setup in setups:
        cells = [_cell(found.get(f"{guest}, {setup}"), reasons) for guest in guests]
        lines.append(f"| {setup} | {' | '.join(cells)} |")
    if reasons:
        lines += ["", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))]
    lines += ["", "Seconds as `lxpy` takes them, in the plain set-up:", ""]
    lines += [f"| | {' | '.join(guests)} |", f"|---|{'---|' * len(guests)}"]
    plain = [found.get(f"{guest}, {setups[0]}") for guest in guests]
    for step in _steps(plain):
        times = [_seconds(cell, step) for cell in plain]
        lines.append(f"| {step} | {' | '.join(times)} |")
    return "\n".join(lines) + "\n"


def _cell(cell: Cell | None, reasons: list[str]) -> str:
    if cell is None:
        return "-"
    if cell["untried"]:
        return f"not tried {_number(cell['untried'], reasons)}"
    if cell["refused"]:
        return f"refused {_number(cell['refused'], reasons)}"
    bad = {name: why for name, why in cell["failures"].items() if why}
    if not bad:
        return "pass"
    return ", ".join(f"{name}: no {_number(why, reasons)}" for name, why in bad.items())


def _seconds(cell: Cell | None, step: str) -> str:
    return f"{cell['seconds'][step]:.1f}" if cell and step in cell["seconds"] else ""


def _number(reason: str, reasons: list[str]) -> str:
    if reason not in reasons:
        reasons.append(reason)
    return f"({reasons.index(reason) + 1})"


def _steps(cells: Sequence[Cell | None]) -> list[str]:
    return list(dict.fromkeys(step for cell in cells if cell for step in cell["seconds"]))


def _kernels(found: dict[str, Cell]) -> str:
    return ", ".join(sorted({cell["kernel"] for cell in found.values()}))


def _criu() -> str:
    said = subprocess.run([f"{PREFIX}/bin/criu", "--version"], capture_output=True, text=True)
    return f"CRIU {said.stdout.partition('Version:')[2].split()[0]}"
