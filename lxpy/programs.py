"""Running the host's programs from the event loop: output collected, errors with a cause."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lxpy.errors import Failed, MissingTool

# Program -> (Debian package, what it is needed for), where the names differ or it may be absent.
_PACKAGES = {
    "dnsmasq": ("dnsmasq-base", "DHCP and DNS of a managed network"),
    "nft": ("nftables", "the firewall of a managed network"),
    "mmdebstrap": ("mmdebstrap", "building a Debian image"),
    "unsquashfs": ("squashfs-tools", "unpacking a squashfs image"),
    "mksquashfs": ("squashfs-tools", "packing a squashfs image"),
    "zstd": ("zstd", "packing and unpacking a zstd image"),
    "xz": ("xz-utils", "packing and unpacking an xz image"),
    "bzip2": ("bzip2", "packing and unpacking a bzip2 image"),
    "btrfs": ("btrfs-progs", "a storage pool of driver btrfs"),
    "mkfs.btrfs": ("btrfs-progs", "a storage pool of driver btrfs"),
    "zfs": ("zfsutils-linux", "a storage pool of driver zfs"),
    "zpool": ("zfsutils-linux", "a storage pool of driver zfs"),
    "vgs": ("lvm2", "a storage pool of driver lvm"),
    "lvs": ("lvm2", "a storage pool of driver lvm"),
    "thin_check": ("thin-provisioning-tools", "a storage pool of driver lvm"),
    "mkfs.ext4": ("e2fsprogs", "a storage pool of driver lvm"),
    "mkfs.xfs": ("xfsprogs", "a volume with block.filesystem=xfs"),
    "modprobe": ("kmod", "linux.kernel_modules"),
    "lxcfs": ("lxcfs", "showing guests their own limits in /proc"),
}


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended: exit status (negative: the signal's number) and its output."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes


async def run(
    *argv: str,
    input: bytes | None = None,
    timeout_s: float | None = 60,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    pass_fds: Sequence[int] = (),
    stdin: int | None = None,
    stdout: int | None = None,
) -> Completed:
    """Run a program to its end; it has no standard input but `input`, and speaks C's language.

    `stdin` and `stdout` are descriptors it reads and writes instead.

    Raises MissingTool when it is not installed; Failed when `check` and its status is not 0, or
    after `timeout_s`. A program whose caller is cancelled is killed with all that it has
    started, and awaited.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=_standard_input(input, stdin),
            stdout=asyncio.subprocess.PIPE if stdout is None else stdout,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
            cwd=cwd,
            pass_fds=pass_fds,
            process_group=0,
        )
    except FileNotFoundError as error:
        package, purpose = _PACKAGES.get(argv[0], (argv[0], "this"))
        raise MissingTool(argv[0], package, purpose) from error
    try:
        async with asyncio.timeout(timeout_s):
            output, errors = await process.communicate(input)
    except TimeoutError as error:
        await _kill(process)
        raise Failed(f"{argv[0]} did not end within {timeout_s:g} s") from error
    except BaseException:
        await _kill(process)
        raise
    assert process.returncode is not None
    completed = Completed(argv, process.returncode, output or b"", errors)
    if check and completed.returncode != 0:
        raise Failed(_complaint(completed))
    return completed


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill a program with all that it has started: what is left would hold its output open."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def run_to_end(
    *argv: str, check: bool = True, env: Mapping[str, str] | None = None
) -> Completed:
    """Run a program that must not be killed halfway: a cancelled caller waits for its end.

    Raises as `run`.
    """
    work = asyncio.ensure_future(run(*argv, check=check, env=env, timeout_s=None))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # seen: the cancellation is what the caller hears of
        raise


def _standard_input(text: bytes | None, descriptor: int | None) -> int:
    if descriptor is not None:
        return descriptor
    return asyncio.subprocess.DEVNULL if text is None else asyncio.subprocess.PIPE


def _complaint(completed: Completed) -> str:
    said = (completed.stderr or completed.stdout).decode("utf-8", "replace").strip()
    command = shlex.join(completed.argv)
    if len(command) > 200:
        command = command[:200] + "..."
    reason = said[-2000:] if said else f"exit status {completed.returncode}"
    return f"Failed to run: {command}: {reason}"
