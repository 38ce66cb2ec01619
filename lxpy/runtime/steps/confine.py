"""What a process of the container may not do, whoever it becomes: set right before exec."""

from __future__ import annotations

import os
import resource

from lxpy.kernel import caps, processes, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.runtime.phases import Report
    from lxpy.runtime.plain import Spec

_NOFILE_SOFT = 1024  # the kernel's own default: programs that use select(2) count on it
_NOFILE_HARD = 1048576
_DEFAULT_UMASK = 0o022


def raise_descriptors() -> None:
    """Let this process open as many files as the host allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _NOFILE_HARD:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (_NOFILE_HARD, _NOFILE_HARD))
        except (OSError, ValueError):
            pass  # a host without CAP_SYS_RESOURCE
        else:
            return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def set_rlimits(rlimits: dict[str, list[int]]) -> None:
    """Set resource limits ("nofile": [soft, hard], -1 for none). As the host's root.

    Without a wish of the instance, NOFILE's hard limit is the supervisor's: dbus and databases ask
    for it.
    """
    if "nofile" not in rlimits:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        soft = _NOFILE_SOFT if hard == resource.RLIM_INFINITY else min(_NOFILE_SOFT, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for name, (soft, hard) in rlimits.items():
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is None:
            raise ValueError(f"unknown resource limit {name!r}")
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError) as error:
            text = f"limits.kernel.{name}={soft}:{hard}: the host does not allow it"
            raise OSError(1, text) from error


def reset_oom_score() -> None:
    """Be as killable as anyone: the supervisor may be protected."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"0")
        finally:
            os.close(fd)
    except OSError:
        pass  # lowering needs CAP_SYS_RESOURCE; raising always works


def confine_init(spec: Spec, program: bytes, report: Report | None) -> None:
    """Give up what PID 1 shall never have. No system call of ours may follow but exec.

    With `report`, what hears of the calls that are carried out for it is handed to the supervisor.
    """
    processes.new_session_keyring()
    caps.drop_bounding(_dropped(spec["caps_drop"], privileged=spec["privileged"]))
    os.umask(_DEFAULT_UMASK)
    processes.reset_signals()
    _install(program, report)


def confine_command(
    program: bytes, caps_drop: list[int], report: Report | None, *, privileged: bool
) -> None:
    """Do the same for an executed command: nothing of it is inherited from PID 1."""
    processes.new_session_keyring()
    caps.drop_bounding(_dropped(caps_drop, privileged=privileged))
    os.umask(_DEFAULT_UMASK)
    _install(program, report)


def _install(program: bytes, report: Report | None) -> None:
    if report is None:
        seccomp.install(program)
        return
    listener = seccomp.install_with_listener(program)
    report.send_descriptor(listener, listener=True)
    os.close(listener)


def _dropped(more: list[int], *, privileged: bool) -> list[int]:
    """Return the capabilities to drop; those that this kernel does not know nobody has."""
    own = caps.PRIVILEGED if privileged else caps.UNPRIVILEGED
    return [number for number in {*own, *more} if number <= caps.last()]
