"""Operations: created, run, told of, kept for a while after their end.

Source: LXD docs, "REST API", "Background operation".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Any, Literal
from uuid import uuid4

import structlog

from lxpy.api.envelope import Status
from lxpy.api.operations import Operation as Described
from lxpy.errors import BadRequest, Forbidden, LxpyError, NotFound
from lxpy.events.bus import Bus
from lxpy.operations.channel import Session

Work = Callable[["Operation"], Awaitable[None]]
Resources = Mapping[str, list[str]]
Kind = Literal["task", "websocket", "token"]

#: the project that a request names: who waits for what it starts looks there, also where the
#: images or volumes that it is about are those of another project
asked_in: ContextVar[str] = ContextVar("asked_in", default="")

_KEPT_S = 5.0
_log = structlog.get_logger()


class Operation:
    """One operation. Its work calls `update` and `progress`; everyone else looks on."""

    def __init__(
        self,
        registry: Registry,
        description: str,
        *,
        project: str,
        resources: Resources,
        session: Session | None,
        may_cancel: bool,
        kind: Kind = "task",
    ) -> None:
        self.id = str(uuid4())
        self.description = description
        self.project = project
        self.resources = {key: list(urls) for key, urls in resources.items()}
        self.session = session
        self.kind = kind
        self.may_cancel = may_cancel
        #: whether who is connected is asked now and then whether it is still there
        self.pings = True
        self.status = Status.PENDING
        self.err = ""
        self.metadata: dict[str, Any] = {}
        self.created_at = self.updated_at = datetime.now(UTC)
        self._registry = registry
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it is found."""
        return f"/1.0/operations/{self.id}"

    def update(self, **values: Any) -> None:
        """Merge `values` into the metadata and tell the listeners."""
        self.metadata.update(values)
        self._touch()

    def progress(self, stage: str, text: str) -> None:
        """Tell how far a stage has come: metadata `{stage}_progress`."""
        self.update(**{f"{stage}_progress": text})

    def describe(self) -> Described:
        """Return what clients see."""
        return Described(
            id=self.id,
            class_=self.kind,
            description=self.description,
            created_at=self.created_at,
            updated_at=self.updated_at,
            status=self.status.text,
            status_code=self.status,
            resources=self.resources or None,
            metadata=dict(self.metadata) or None,
            may_cancel=self.may_cancel,
            err=self.err,
        )

    def is_secret(self, secret: str) -> bool:
        """Tell whether that is the secret that metadata tells whoever is to wait for the end."""
        known = self.metadata.get("secret")
        return bool(secret and known) and compare_digest(str(known).encode(), secret.encode())

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False when the time is over before."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def attend(self) -> None:
        """Wait for the end; a caller that is cancelled takes the work along."""
        try:
            await self.wait()
        except BaseException:
            self.abort()
            await self.wait()
            raise

    def cancel(self) -> None:
        """Ask the work to stop. Raises BadRequest when it cannot be cancelled, or is over."""
        if self.status.is_final:
            raise BadRequest("Only running operations can be cancelled")
        if not self.may_cancel:
            raise BadRequest("This operation can't be cancelled")
        self._move(Status.CANCELLING)
        self.abort()

    def abort(self) -> None:
        """Cancel the work without asking whether that is allowed."""
        if self._task is not None:
            self._task.cancel()

    def begin(self, work: Work) -> None:
        """Run `work` in a task of its own (the registry calls it)."""
        self._touch()
        self._move(Status.RUNNING)
        self._task = asyncio.get_running_loop().create_task(self._run(work), name=self.url)
        self._task.add_done_callback(self._settle)

    def _settle(self, _: asyncio.Task[None]) -> None:
        if not self._ended.is_set():  # cancelled before its first step
            self._finish(Status.CANCELLED, "Operation cancelled")

    async def _run(self, work: Work) -> None:
        structlog.contextvars.bind_contextvars(operation=self.id)
        try:
            await work(self)
        except asyncio.CancelledError:
            self._finish(Status.CANCELLED, "Operation cancelled")
        except LxpyError as error:
            _log.info("operation failed", description=self.description, error=str(error))
            self._finish(Status.FAILURE, str(error))
        except Exception as error:
            self._finish(Status.FAILURE, f"Internal error: {error!r} (see the daemon's log)")
            _log.exception("operation broke", description=self.description)
        else:
            self._finish(Status.SUCCESS, "")

    def _finish(self, status: Status, err: str) -> None:
        self.err = err
        self.may_cancel = False
        self._move(status)
        self._ended.set()
        self._registry.ended(self)

    def _move(self, status: Status) -> None:
        self.status = status
        self._touch()

    def _touch(self) -> None:
        self.updated_at = datetime.now(UTC)
        self._registry.tell(self)


class Registry:
    """All operations of the daemon."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._operations: dict[str, Operation] = {}
        self._closing = False

    def spawn(
        self,
        description: str,
        work: Work,
        *,
        project: str = "default",
        resources: Resources | None = None,
        cancellable: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> Operation:
        """Start work in the background; `resources` are URLs by kind ("instances").

        A LxpyError raised by `work` becomes the operation's `err`.
        """
        operation = Operation(
            self, description, project=asked_in.get() or project,
            resources=_both(resources or {}), session=None, may_cancel=cancellable,
        )  # fmt: skip
        operation.metadata = dict(metadata or {})
        self._operations[operation.id] = operation
        operation.begin(work)
        return operation

    def open(
        self,
        description: str,
        session: Session,
        *,
        project: str = "default",
        resources: Resources | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Operation:
        """Start a session that clients connect websockets to; metadata gets their secrets."""
        operation = Operation(
            self, description, project=asked_in.get() or project,
            resources=_both(resources or {}), session=session, may_cancel=False, kind="websocket",
        )  # fmt: skip
        operation.metadata = {**(metadata or {}), "fds": dict(session.secrets)}
        self._operations[operation.id] = operation
        operation.begin(session.run)
        return operation

    def meet(
        self, description: str, session: Session, *, project: str, resources: Resources
    ) -> Operation:
        """Start a session that another server connects to; metadata are the sockets' secrets.

        That server may be busy and answer no pings.
        """
        operation = Operation(
            self, description, project=asked_in.get() or project, resources=_both(resources),
            session=session, may_cancel=True, kind="websocket",
        )  # fmt: skip
        operation.metadata = dict(session.secrets)
        operation.pings = False
        self._operations[operation.id] = operation
        operation.begin(session.run)
        return operation

    def token(
        self,
        description: str,
        *,
        project: str = "default",
        resources: Resources | None = None,
        metadata: Mapping[str, Any],
    ) -> Operation:
        """Hand out a token, such as metadata's secret: it is good until somebody cancels it."""
        operation = Operation(
            self, description, project=project, resources=_both(resources or {}), session=None,
            may_cancel=True, kind="token",
        )  # fmt: skip
        operation.metadata = dict(metadata)
        self._operations[operation.id] = operation
        operation.begin(_for_ever)
        return operation

    def tokens(self, description: str, project: str | None = None) -> list[Operation]:
        """Return the tokens of a kind (and of a project); those just cancelled are among them."""
        return [
            each
            for each in self.listed(project)
            if each.kind == "token" and each.description == description
        ]

    def get(self, id: str) -> Operation:
        """Return an operation. Raises NotFound."""
        try:
            return self._operations[id]
        except KeyError:
            raise NotFound("Operation not found") from None

    def listed(self, project: str | None) -> Iterable[Operation]:
        """Return the operations of a project (None: of all), oldest first."""
        return [each for each in self._operations.values() if project in (None, each.project)]

    def socket(self, id: str, secret: str) -> tuple[Session, str]:
        """Return the session and the socket's name that a secret opens.

        Raises NotFound, BadRequest, Forbidden.
        """
        operation = self.get(id)
        if operation.session is None:
            raise BadRequest("Only websocket operations can be connected to")
        if operation.status is not Status.RUNNING:
            raise BadRequest("The operation isn't running")
        for name, known in operation.session.secrets.items():
            if secret and secret == known:
                return operation.session, name
        raise Forbidden("not authorized")

    def cancel(self, id: str) -> None:
        """Cancel an operation. Raises NotFound, BadRequest."""
        self.get(id).cancel()

    def tell(self, operation: Operation) -> None:
        """Send an event on an operation's present state."""
        self._bus.publish("operation", operation.describe(), operation.project)

    def ended(self, operation: Operation) -> None:
        """Forget an operation in a while: slow clients still fetch its end."""
        loop = asyncio.get_running_loop()
        loop.call_later(_KEPT_S, self._operations.pop, operation.id, None)

    async def close(self, grace_s: float = 5.0) -> None:
        """Let running work come to its end for a while, then cancel it, and wait for that."""
        running = [each for each in self._operations.values() if not each.status.is_final]
        deadline = asyncio.get_running_loop().time() + grace_s
        for each in running:
            if each.kind != "task":
                each.abort()
        for each in running:
            if not await each.wait(max(0.0, deadline - asyncio.get_running_loop().time())):
                each.abort()
                await each.wait(30)


async def _for_ever(_: Operation) -> None:
    await asyncio.Event().wait()


def _both(resources: Resources) -> Resources:
    """Add the old name and path: what is under "instances" is under "containers", too."""
    if "instances" not in resources:
        return resources
    old = [each.replace("/instances/", "/containers/", 1) for each in resources["instances"]]
    return {**resources, "containers": old}
