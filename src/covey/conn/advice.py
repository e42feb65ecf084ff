"""What a user can do about an error: one sentence per kind."""

from __future__ import annotations

from covey.errors import (
    AddressError,
    ConnectError,
    ConnectionAborted,
    ConnectTimeout,
    HandshakeError,
    HandshakeTimeout,
    LimitError,
    ProtocolError,
    Refused,
    SelfConnection,
)

_BY_CODE = {
    "ECONNREFUSED": "start the other side, or correct the port: its host runs, nothing listens",
    "ETIMEDOUT": "check the address and any firewall between: nobody answered",
    "EHOSTUNREACH": "check the network: there is no route to that host",
    "ENETUNREACH": "check the network: there is no route to that host",
    "ENOTFOUND": "check the spelling of the host name",
    "EAI_NONAME": "check the spelling of the host name",
    "EMFILE": "raise the limit of open files (ulimit -n), or lower max_connections",
    "ENFILE": "raise the limit of open files (ulimit -n), or lower max_connections",
}

_BY_KIND: tuple[tuple[type[Exception], str], ...] = (
    (SelfConnection, "use the address of the other peer: this one is your own"),
    (HandshakeTimeout, "check that covey, and not another program, listens at that port"),
    (
        HandshakeError,
        "check the key and handshake in the address, and whether the other side lets this host in",
    ),
    (Refused, "close connections that you do not need, or raise the limit that is named"),
    (ConnectTimeout, _BY_CODE["ETIMEDOUT"]),
    (LimitError, "raise the limit that is named"),
    (AddressError, "correct the address"),
    (ProtocolError, "tell the authors of the other program: it broke the protocol"),
)


def advice_for(error: BaseException) -> str | None:
    """One sentence for the user, or None when nothing helps or nothing is wrong."""
    if isinstance(error, ConnectionAborted):
        return None
    if isinstance(error, ConnectError) and error.code in _BY_CODE:
        return _BY_CODE[error.code]
    for kind, advice in _BY_KIND:
        if isinstance(error, kind):
            return advice
    return None
