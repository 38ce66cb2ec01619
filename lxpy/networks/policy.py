"""What is to pass a network besides what its config says: forwards and ACLs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lxpy.networks import acls
from lxpy.networks.acls import Acl
from lxpy.networks.forwards import Forward, Translation, translations
from lxpy.networks.keys import Bridge


@dataclass(frozen=True, slots=True)
class Policy:
    """Forwards into a network, and the ACLs on it."""

    forwards: tuple[Forward, ...] = ()
    acls: tuple[Acl, ...] = ()

    @property
    def versions(self) -> frozenset[int]:
        """The IP versions that have forwards."""
        return frozenset(6 if ":" in each.listen_address else 4 for each in self.forwards)

    def translations(self) -> list[Translation]:
        """Return the rules of the forwards."""
        return list(translations(self.forwards))

    def rules(self, network: Bridge) -> Iterator[str]:
        """Yield the rules of the ACLs, none when there are no ACLs."""
        if self.acls:
            yield from acls.lines(self.acls, network)
