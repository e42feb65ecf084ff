"""One handshake under way, and who is told about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from covey.address import Address, Step, encode_key
from covey.errors import ConnectError
from covey.host_port import HostPort


@dataclass(frozen=True, slots=True)
class Attempt:
    """A raw connection on its way to become a `Connection`.

    `id` is unique in the process, `type` the kind of transport (`tcp`) and `transport` its name in
    addresses (`net`), `host` and `port` what was dialled or, for an accepted one, where it came
    from. `address` is None for accepted ones. `handshake` is a name of the registry, and what its
    entry says: `proves_key`, whether the remote proves a key, and `keeps_alive`, whether its end
    sends keep-alives, so that silence means something.
    """

    id: int
    type: str
    initiator: bool
    host: str
    port: int
    address: Address | None
    handshake: str
    transport: str = "net"
    proves_key: bool = False
    keeps_alive: bool = False

    def address_from(self, remote: HostPort, key: bytes | None) -> Address:
        """The address of who came in from `remote` and proved `key`, written as a dialled one."""
        host, port = remote
        place = (*host.split(":"), str(port)) if port else (host,)
        proof = (encode_key(key),) if key is not None and self.proves_key else ()
        return Address.of([(Step(self.transport, place), Step(self.handshake, proof))])


class AttemptObserver(Protocol):
    """Who wants to know about handshakes. Calls are synchronous and must not raise."""

    def handshaking(self, attempt: Attempt) -> None:
        """The raw connection is up and the handshake begins."""

    def handshake_failed(self, attempt: Attempt, error: ConnectError) -> None:
        """The handshake failed or was called off; the raw connection is closed."""
