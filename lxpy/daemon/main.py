"""lxpyd: flags, logging, the background, signals, and an orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click
import structlog
from aiohttp import web

from lxpy import __version__
from lxpy.daemon import listeners
from lxpy.errors import LxpyError

if TYPE_CHECKING:
    from lxpy.daemon.app import Application

_LINGER_S = 2.0


@dataclass(frozen=True, slots=True)
class Options:
    """How the daemon was called."""

    directory: Path
    group: str
    level: int


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--group", default="", help="Group whose members may use the API socket.")
@click.option("--debug", is_flag=True, help="Log everything.")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens, not only what goes wrong.")
@click.option("--log", type=click.Path(path_type=Path), help="Append the log to this file.")
@click.option("--daemonize", is_flag=True, help="Go to the background once the API answers.")
@click.version_option(__version__, prog_name="lxpyd")
def command(group: str, debug: bool, verbose: bool, log: Path | None, daemonize: bool) -> None:
    """Manage system containers; LXPY_DIR (/var/lib/lxpy) is where everything is kept.

    SIGTERM ends the daemon and leaves instances running; SIGPWR stops them first.
    """
    if os.geteuid() != 0:
        raise click.ClickException("lxpyd needs to be root: it makes namespaces, mounts, networks")
    # Resolved: mounts and processes are found again by this path.
    directory = Path(os.environ.get("LXPY_DIR") or "/var/lib/lxpy").resolve()
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    if daemonize and log is None:
        log = directory / "logs/lxpyd.log"
    ready = _Background() if daemonize else None
    sink = _open_log(log) if log is not None else sys.stderr
    _set_up_logging(level, sink)
    try:
        asyncio.run(_serve(Options(directory, group, level), ready, sink))
    except LxpyError as error:
        if ready is not None:
            ready.failed(str(error))
        sys.exit(f"lxpyd: {error}")


def main() -> None:
    """Run `lxpyd`."""
    command.main(prog_name="lxpyd")


class _Background:
    """A process in the background whose parent waits until it is ready, then ends."""

    def __init__(self) -> None:
        reader, self._writer = os.pipe()
        if os.fork():
            os.close(self._writer)
            with os.fdopen(reader, "rb") as pipe:
                said = pipe.read().decode(errors="replace")
            if said == "ready":
                os._exit(0)
            sys.stderr.write(f"lxpyd: {said or 'it ended before it was ready, see its log'}\n")
            sys.stderr.flush()
            os._exit(1)
        os.close(reader)
        os.setsid()
        os.chdir("/")

    def ready(self, sink: TextIO) -> None:
        """Let go of the terminal and tell the parent."""
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        for number in (1, 2):
            os.dup2(sink.fileno(), number)
        os.close(null)
        self._say("ready")

    def failed(self, text: str) -> None:
        """Tell the parent why it did not work."""
        self._say(text)

    def _say(self, text: str) -> None:
        os.write(self._writer, text.encode())
        os.close(self._writer)


def _open_log(path: Path) -> TextIO:
    try:
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        return path.open("a", buffering=1)
    except OSError as error:
        raise click.ClickException(f"Cannot write the log: {error}") from error


def _set_up_logging(level: int, sink: TextIO) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=("timestamp", "level", "event")),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sink),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(level, logging.WARNING), stream=sink)


async def _serve(options: Options, background: _Background | None, sink: TextIO) -> None:
    # What the daemon is made of takes a third of a second to import: flags are checked before.
    from lxpy.daemon.app import Application

    end = asyncio.Event()
    application = Application(options.directory, stop=end.set)
    application.directories.make()
    with ExitStack() as stack:
        stack.callback(os.close, listeners.lock(application.directories.root))
        sock: socket.socket | None = None
        while True:
            try:
                await application.start()
                if sock is None:
                    sock = listeners.listen(application.directories.socket, options.group)
                    stack.callback(sock.close)
                await _answer(application, end, sock.dup(), background, sink)
            finally:
                await application.close()
            if not application.again:
                return
            end, background = asyncio.Event(), None
            application = Application(options.directory, stop=end.set)


async def _answer(
    application: Application,
    end: asyncio.Event,
    sock: socket.socket,
    background: _Background | None,
    sink: TextIO,
) -> None:
    """Answer requests until the end."""
    from lxpy.daemon import site

    loop = asyncio.get_running_loop()
    runner = web.AppRunner(site.build(application), access_log=None, shutdown_timeout=_LINGER_S)
    await runner.setup()
    await web.SockSite(runner, sock, backlog=1024).start()
    metrics = web.AppRunner(site.build_metrics(application), access_log=None)
    await metrics.setup()
    assert runner.server is not None and metrics.server is not None
    await application.begin_https(runner.server, metrics.server)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        loop.add_signal_handler(number, end.set)
    loop.add_signal_handler(signal.SIGPWR, application.host_goes_down)
    listeners.notify("READY=1")
    if background is not None:
        background.ready(sink)
    application.begin()
    gc.collect()
    gc.freeze()
    await end.wait()
    listeners.notify("RELOADING=1" if application.again else "STOPPING=1")
    application.leave()
    await metrics.cleanup()
    await runner.cleanup()
