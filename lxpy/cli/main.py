"""Entry point of `lxpy`: shortest way to the command, and errors as `lxc` prints them."""

from __future__ import annotations

import os
import sys

from lxpy.cli import fast
from lxpy.cli.expansion import expand
from lxpy.cli.session import Session
from lxpy.client import aliases
from lxpy.errors import LxpyError

INTERRUPTED = 130
BROKEN_PIPE = 141


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        status = _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        # Nobody reads on; without this the interpreter tries to flush once more and complains.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = BROKEN_PIPE
    except (LxpyError, OSError) as error:
        status = _report(error)
    return status


def _run(words: list[str]) -> int:
    if words and words[0] != "--force-local" and (known := aliases.load()):
        words = expand(words, known)
    if words and (parsed := fast.parse(words)) is not None:
        return fast.run(words[0], Session(), parsed)
    from lxpy.cli.root import run  # click takes 20 ms

    return run(words)


def _report(error: Exception) -> int:
    """Print an error. Completion asks in the background and wants no words."""
    if "_LXPY_COMPLETE" not in os.environ:
        sys.stdout.flush()
        print(f"Error: {describe(error)}", file=sys.stderr)
    return 1


def describe(error: Exception) -> str:
    """Return an error's text; of a failed system call, what it spoke of and why it failed."""
    if isinstance(error, OSError) and error.strerror:
        subject = f"{error.filename}: " if error.filename else ""
        return f"{subject}{error.strerror}"
    return str(error)
