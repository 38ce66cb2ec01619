"""Debian and its relatives, by mmdebstrap. Source: mmdebstrap(1), apt.conf(5).

Options of a recipe: `components`; `keyring`, with the package it is in, for a distribution whose
keys this host's apt does not trust.
"""

from __future__ import annotations

import re
from pathlib import Path

from lxpy import programs
from lxpy.errors import Failed
from lxpy.images.tools.base import Ended, Work, broken, follow, probe, silent_mirror
from lxpy.threads import in_thread

_FETCH = re.compile(r"E: Failed to fetch (\S+)\s+(.*)")
_UNREACHED = ("Could not connect", "Could not resolve", "timed out", "Unable to connect",
              "No route to host", "Temporary failure", "Connection failed")  # fmt: skip
# A mirror that is silent for so long is down: say so, rather than wait for minutes.
_PATIENCE = ('Acquire::Retries "0"', 'Acquire::http::Timeout "8"', 'Acquire::https::Timeout "8"')
_LEFT_BEHIND = "etc/apt/apt.conf.d/99mmdebstrap"  # where mmdebstrap keeps --aptopt


async def bootstrap(work: Work) -> None:
    """Fill work.rootfs. Raises Failed or MissingTool."""
    plan = work.plan
    keyring = plan.option("keyring")
    if work.mirror:
        await probe(plan, work.mirror)
    options = [f"--aptopt={each}" for each in (*_PATIENCE, *await _freshness())]
    if keyring and not await in_thread(Path(keyring).is_file):
        raise Failed(
            f"Cannot build {plan.alias}: {keyring} is missing, which its packages are checked "
            f'with: install package "{plan.option("keyring_package")}"'
        )
    if keyring:
        options.append(f"--keyring={keyring}")
    ended = await follow(
        (
            "mmdebstrap",
            "--mode=root",
            "--format=directory",
            "--variant=minbase",
            f"--components={plan.option('components') or 'main'}",
            f"--include={','.join(plan.packages)}",
            *options,
            plan.release,
            str(work.rootfs),
            *([work.mirror] if work.mirror else []),
        ),
        lambda line: _tell(work, line),
        package="mmdebstrap",
        purpose=f"building {plan.alias}",
        env={"DEBIAN_FRONTEND": "noninteractive"},
    )
    if ended.status != 0:
        raise _failure(work, ended)
    await in_thread((work.rootfs / _LEFT_BEHIND).unlink, True)


async def _freshness() -> tuple[str, ...]:
    """Whether an index may be past its Valid-Until, as this host's own apt has it.

    mmdebstrap reads no apt.conf of the host; one whose mirror is frozen in time says there that
    indexes do not expire. Signatures are verified all the same.
    """
    asked = ("apt-config", "shell", "CHECKED", "Acquire::Check-Valid-Until/b")
    try:
        told = await programs.run(*asked)
    except Failed:  # not a host of apt's kind
        return ()
    return ('Acquire::Check-Valid-Until "false"',) if b"'false'" in told.stdout else ()


def _tell(work: Work, line: str) -> None:
    if line.startswith("I: "):
        work.tell(line[3:].rstrip("."))


def _failure(work: Work, ended: Ended) -> Failed:
    for line in ended.lines:
        match = _FETCH.match(line)
        if match and any(each in match[2] for each in _UNREACHED):
            mirror = match[1].partition("/dists/")[0]
            return silent_mirror(work.plan, mirror, match[2])
    errors = [line[3:] for line in ended.lines if line.startswith("E: ")]
    # the first tells the cause, those after it who gave up because of it
    return broken(work.plan, "mmdebstrap", ended, errors[0] if errors else "")
