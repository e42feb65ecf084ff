"""One handshake under way, and who is told about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from covey.address import Address, encode_key
from covey.address import Protocol as Step
from covey.errors import ConnectError
from covey.host_port import HostPort


@dataclass(frozen=True, slots=True)
class Attempt:
    """A raw connection on its way to become a `Connection`.

    `id` is unique in the process, `type` the kind of transport (`tcp`) and `transport` its name in
    addresses (`net`), `host` and `port` what was dialled
    or, for an accepted one, where it came from. `address` is None for accepted ones.
    """

    id: int
    type: str
    initiator: bool
    host: str
    port: int
    address: Address | None
    handshake: str
    transport: str = "net"

    def address_from(self, remote: HostPort, key: bytes | None) -> Address:
        """The address of who came in from `remote` and proved `key`, written as a dialled one."""
        host, port = remote
        if port:
            known = key if self.handshake == "noise" else None
            return Address.net(host, port, self.handshake, known, transport=self.transport)
        proof = (encode_key(key),) if key is not None and self.handshake == "noise" else ()
        steps = Step(self.transport, (host,)), Step(self.handshake, proof)
        return Address.of([steps])


class AttemptObserver(Protocol):
    """Who wants to know about handshakes. Calls are synchronous and must not raise."""

    def handshaking(self, attempt: Attempt) -> None:
        """The raw connection is up and the handshake begins."""

    def handshake_failed(self, attempt: Attempt, error: ConnectError) -> None:
        """The handshake failed or was called off; the raw connection is closed."""
