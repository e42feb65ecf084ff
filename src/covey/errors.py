"""The error tree: everything covey raises on purpose descends from `CoveyError`.

An error says what was wrong with which peer or value, never with a secret in it, and keeps
its cause in `__cause__`.
"""

from __future__ import annotations

from collections.abc import Mapping


class CoveyError(Exception):
    """Base of everything covey raises on purpose."""


class AddressError(CoveyError, ValueError):
    """The text is not a multiserver address, or not one that can be dialled."""


class EncodeError(CoveyError, ValueError):
    """A value of our caller does not fit the encoding it was given to."""


class UsageError(CoveyError):
    """Our caller asked for what the protocol forbids: a bug on this side."""


class KeyFileError(CoveyError):
    """A key file is missing, damaged, or readable by others."""


class ClosedError(CoveyError):
    """Used after the end; `__cause__` says what ended it (None: we closed it)."""


class HubClosed(ClosedError):
    """The hub was closed while this call waited."""


class LimitError(CoveyError):
    """A bound of ours was reached; `limit` is its name in `Limits`, `allowed` its value."""

    def __init__(self, message: str, *, limit: str, allowed: float) -> None:
        super().__init__(message)
        self.limit = limit
        self.allowed = allowed


class ProtocolError(CoveyError):
    """The remote broke a rule: its connection ends, nobody else's."""


class DecodeError(ProtocolError):
    """Bytes from the remote do not decode."""


class ConnectError(CoveyError):
    """No connection could be made; `address` was asked for, `code` is an errno name or None."""

    def __init__(
        self, message: str, *, address: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.address = address
        self.code = code


class DialFailed(ConnectError):
    """Every address of a host failed; `causes` maps each address tried to its error."""

    def __init__(
        self,
        message: str,
        *,
        address: str | None,
        code: str | None,
        causes: Mapping[str, Exception],
    ) -> None:
        super().__init__(message, address=address, code=code)
        self.causes = dict(causes)


class ConnectTimeout(ConnectError):
    """Nobody answered in time; `code` is `ETIMEDOUT`."""


class ConnectionAborted(ConnectError):
    """A pending connect was called off (disconnect, ban, reset)."""


class SelfConnection(ConnectError):
    """The address leads back to this very node."""


class Refused(ConnectError):
    """Policy of this side refuses the peer (ban, whitelist, limits); `reason` is its short name."""

    def __init__(self, message: str, *, reason: str, address: str | None = None) -> None:
        super().__init__(message, address=address)
        self.reason = reason


class HandshakeError(ConnectError):
    """The remote answered, but did not complete or did not pass the handshake."""


class HandshakeTimeout(HandshakeError):
    """The remote did not complete the handshake in time."""


class DiscoveryError(CoveyError):
    """A discovery source could not ask its network."""


class VerifyError(CoveyError):
    """A block or proof does not fit the signature."""


class FrozenError(CoveyError):
    """The log takes no more writes: its owner signed two states that exclude each other."""


class StoreError(CoveyError):
    """The store cannot do what was asked: damaged, full, or in use by another process."""


class BlockNotAvailable(CoveyError):
    """A block is not here, and the call was not to wait for it, or nothing will ever bring it."""


class FeedTimeout(CoveyError):
    """The peers of a log did not bring what was asked for in time."""
