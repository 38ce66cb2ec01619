"""Every error a reader can act on, and the one place that knows HTTP status codes.

Only a `LxpyError` reaches a client as itself; anything else becomes a 500 with the request id.
"""

from __future__ import annotations

from http import HTTPStatus

TYPE_CHECKING = False  # importing typing takes 3 ms, a tenth of a short command
if TYPE_CHECKING:
    from typing import ClassVar


class LxpyError(Exception):
    """An error its reader can act on: the text names the object, the cause and the remedy."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR


class BadRequest(LxpyError):
    """The request is malformed, or does not fit the state of the object."""

    status: ClassVar[HTTPStatus] = HTTPStatus.BAD_REQUEST


class Forbidden(LxpyError):
    """The caller may not do this, or nobody may do it to this object."""

    status: ClassVar[HTTPStatus] = HTTPStatus.FORBIDDEN


class NotFound(LxpyError):
    """The object that the request names does not exist."""

    status: ClassVar[HTTPStatus] = HTTPStatus.NOT_FOUND


class Conflict(LxpyError):
    """The name is taken, or another operation holds the object."""

    status: ClassVar[HTTPStatus] = HTTPStatus.CONFLICT


class PreconditionFailed(LxpyError):
    """`If-Match` names another version of the object."""

    status: ClassVar[HTTPStatus] = HTTPStatus.PRECONDITION_FAILED


class NotSupported(LxpyError):
    """This host, driver or build cannot do it."""

    status: ClassVar[HTTPStatus] = HTTPStatus.NOT_IMPLEMENTED


class Unavailable(LxpyError):
    """Not now: the daemon starts or stops, or a resource is used up."""

    status: ClassVar[HTTPStatus] = HTTPStatus.SERVICE_UNAVAILABLE


class Failed(LxpyError):
    """The work was begun and did not succeed (LXD answers 500 with the cause)."""


class InvalidConfig(BadRequest):
    """A config key or device option is unknown or has an invalid value."""


class MissingTool(Failed):
    """A program that the host must provide is not installed."""

    def __init__(self, program: str, package: str, purpose: str) -> None:
        super().__init__(
            f'Program "{program}" is not installed, {purpose} needs it: install package "{package}"'
        )


class Unreachable(Unavailable):
    """No daemon answers at the socket that a client was told to use."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(
            f"Cannot reach lxpyd at {path}: {cause}: is it running? Start it with "
            f'"systemctl start lxpyd", "rc-service lxpyd start" or "lxpyd --daemonize"; '
            "LXPY_DIR or LXPY_SOCKET name another one"
        )


class Refused(LxpyError):
    """A server's answer to a client: it refused a request, or an operation on it failed.

    `code` is the server's HTTP status, 0 when there was none.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code
