"""The server: what it is, its config, and the parts of the API that are about all of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

from lxpy.api import resources
from lxpy.api import server as api
from lxpy.api.extensions import EXTENSIONS
from lxpy.db.engine import Database
from lxpy.errors import LxpyError
from lxpy.events.lifecycle import Lifecycle
from lxpy.services.server import access, environment, hardware
from lxpy.services.server.certificate import ServerCertificate
from lxpy.services.server.keys import PASSWORD, checked, shown
from lxpy.services.server.settings import Settings
from lxpy.services.server.warnings import Warnings
from lxpy.services.storage.own_volumes import OwnVolumes
from lxpy.services.storage.pools import Pools
from lxpy.threads import in_thread

#: raises PreconditionFailed when the writable part it is shown is not the one the caller knows
Check = Callable[[object], None]


class Server:
    """Answers for the whole installation; `addresses` returns where it is reached."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        pools: Pools,
        lifecycle: Lifecycle,
        certificate: ServerCertificate,
        volumes: OwnVolumes,
        warnings: Warnings,
    ) -> None:
        self._db = db
        self._settings = settings
        self._pools = pools
        self.warnings = warnings
        self._lifecycle = lifecycle
        self._certificate = certificate
        self._volumes = volumes
        self.addresses: Callable[[], Sequence[str]] = list
        #: makes the server listen where a config says; raises BadRequest, and stays as it was
        self.listen: Callable[[Mapping[str, str]], Awaitable[None]] = _nowhere
        self._changing = asyncio.Lock()

    async def get(self, project: str) -> tuple[api.Server, object]:
        """Return what a trusted client sees, and the writable part: the config."""
        known = self._pools.storage.drivers()
        names = self._pools.drivers_in_use()
        used = [each for each in known if each.name in names]
        found = await in_thread(environment.describe, project, used=used, known=known)
        found.addresses = list(self.addresses())
        found.certificate = self._certificate.pem
        found.certificate_fingerprint = self._certificate.fingerprint
        found.lxpy_warnings = [each.last_message for each in self.warnings.warnings()]
        config = shown(self._settings.all())
        told = {key: True if key == PASSWORD else text for key, text in config.items()}
        server = api.Server(
            api_extensions=list(EXTENSIONS), auth="trusted",
            config={} if access.is_restricted() else told,
            environment=found,
        )  # fmt: skip
        return server, config

    def introduction(self) -> api.Introduction:
        """Return what anybody sees."""
        return api.Introduction(api_extensions=list(EXTENSIONS))

    async def put(self, wish: api.ServerPut, check: Check) -> None:
        """Replace the config. Raises InvalidConfig, PreconditionFailed."""
        await self._replace(lambda _: wish.config or {}, check)

    async def patch(self, wish: api.ServerPut, check: Check) -> None:
        """Change keys of the config; "" unsets one. Raises as `put`."""
        await self._replace(lambda old: {**old, **(wish.config or {})}, check)

    async def _replace(
        self, change: Callable[[Mapping[str, str]], Mapping[str, object]], check: Check
    ) -> None:
        async with self._changing:
            old = self._settings.all()
            check(shown(old))
            new = await in_thread(checked, change(shown(old)), old)
            if new != old:
                await self._apply(old, new)
        self._lifecycle.emit("config-updated", "/1.0")

    async def _apply(self, old: dict[str, str], new: dict[str, str]) -> None:
        await self._volumes.check(old, new)
        try:
            await self.listen(new)
            await self._volumes.leave(new)
            await self._settings.replace(new)
            await self._volumes.enter(new)
        except BaseException:
            await self._undo(old)
            raise

    async def _undo(self, old: dict[str, str]) -> None:
        if self._settings.all() != old:
            await self._settings.replace(old)
        for again in (self.listen, self._volumes.leave, self._volumes.enter):
            with contextlib.suppress(LxpyError):  # what could not be had before
                await again(old)

    async def resources(self) -> resources.Resources:
        """Return the host's hardware."""
        return await in_thread(hardware.read)


async def _nowhere(_: Mapping[str, str]) -> None:
    """Listen nowhere: there is no network yet."""
