"""One handshake under way, and who is told about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from covey.address import Address
from covey.errors import ConnectError


@dataclass(frozen=True, slots=True)
class Attempt:
    """A raw connection on its way to become a `Connection`.

    `id` is unique in the process, `type` the transport (`tcp`), `host` and `port` what was dialled
    or, for an accepted one, where it came from. `address` is None for accepted ones.
    """

    id: int
    type: str
    initiator: bool
    host: str
    port: int
    address: Address | None
    handshake: str


class AttemptObserver(Protocol):
    """Who wants to know about handshakes. Calls are synchronous and must not raise."""

    def handshaking(self, attempt: Attempt) -> None:
        """The raw connection is up and the handshake begins."""

    def handshake_failed(self, attempt: Attempt, error: ConnectError) -> None:
        """The handshake failed or was called off; the raw connection is closed."""
