"""Instances and volumes from one server to another, by the protocol that LXD has for that.

The target fetches them (pull), the source sends them (push), or both speak through us (relay).
"""

from __future__ import annotations

from lxpy.cli.image_source import NotListening, reach
from lxpy.cli.relay import relay
from lxpy.client.client import succeeded
from lxpy.errors import LxpyError, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.client.client import Client, Json
    from lxpy.client.remotes import Remote

MODES = ("pull", "push", "relay")


class Transfer:
    """One thing on its way: what the source is asked for at `path`, what the target is to make."""

    def __init__(
        self,
        source: tuple[Remote, Client],
        target: tuple[Remote, Client],
        *,
        path: str,
        ask: Json,
        make_at: str,
        make: Json,
    ) -> None:
        self._from, self._source = source
        self._to, self._target = target
        self._path = path
        self._ask = {**ask, "migration": True}
        self._make_at = make_at
        self._make = {**make, "source": {**make["source"], "type": "migration"}}

    def run(self, mode: str | None) -> None:
        """Transfer it. Raises Refused, BadRequest; nothing is left at the target then."""
        if mode == "push":
            self._push()
        elif mode == "relay":
            self._relay()
        else:
            try:
                addresses, certificate = reach(self._source, self._from)
            except NotListening:
                if mode == "pull":
                    raise
                self._relay()
            else:
                self._pull(addresses, certificate)

    def _pull(self, addresses: list[str], certificate: str) -> None:
        problem: LxpyError | None = None
        for address in addresses:
            waiting = self._source.begin("POST", self._path, self._ask)
            body = self._body(
                "pull",
                operation=f"{address}/1.0/operations/{waiting['id']}",
                secrets=waiting["metadata"],
                certificate=certificate,
            )
            try:
                self._target.change("POST", self._make_at, body)
            except Refused as error:
                self._give_up(self._source, waiting)
                if not str(error).startswith("Failed connecting"):
                    raise
                problem = error
                continue
            succeeded(self._source.wait(waiting))
            return
        assert problem is not None
        raise problem

    def _push(self) -> None:
        addresses, certificate = reach(self._target, self._to)
        waiting = self._target.begin("POST", self._make_at, self._body("push"))
        goal = {
            "operation": f"{addresses[0]}/1.0/operations/{waiting['id']}",
            "secrets": waiting["metadata"],
            "certificate": certificate,
        }
        try:
            self._source.change("POST", self._path, {**self._ask, "target": goal})
        except BaseException:
            self._give_up(self._target, waiting)
            raise
        succeeded(self._target.wait(waiting))

    def _relay(self) -> None:
        waiting = self._target.begin("POST", self._make_at, self._body("push"))
        try:
            sending = self._source.begin("POST", self._path, self._ask)
        except BaseException:
            self._give_up(self._target, waiting)
            raise
        relay((self._source, sending), (self._target, waiting))
        # The target's reason comes first: the source often knows only that the other one has gone.
        succeeded(self._target.wait(waiting))
        succeeded(self._source.wait(sending))

    def _body(self, mode: str, **more: object) -> Json:
        return {**self._make, "source": {**self._make["source"], "mode": mode, **more}}

    def _give_up(self, client: Client, operation: Json) -> None:
        """Cancel an operation that waits for nobody any more."""
        try:
            client.ask("DELETE", f"/1.0/operations/{operation['id']}")
        except LxpyError:
            return  # it has ended, and a failure is being told already
