"""What a flock does, in one line of plain words for each event, or as data."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from covey.cli.output import Output, key_text
from covey.errors import SelfConnection
from covey.host_port import show

if TYPE_CHECKING:
    from covey.conn.staging import StagingEvent
    from covey.events import Subscription
    from covey.flock.events import (
        ConnectionClosed,
        ConnectionInfo,
        FlockError,
        FlockEvent,
        HandlerFailed,
        HandshakeTimedOut,
        Handshaking,
        Listening,
        Peer,
        PeerBanned,
        PeerConnected,
        PeerConnectFailed,
        PeerConnecting,
        PeerDiscovered,
        PeerDropped,
        PeerRejected,
        RedundantConnection,
    )
    from covey.net.connection import Connection


class Brief:
    """What a person wants to see who only waits for a connection: news, and each trouble once.

    `trouble` is the last thing that went wrong, in words, `advice` what to do about it where that
    is known. `own_key`: this side proves a key that was made before, so that another process may
    prove the same: that is told, and no later trouble takes its place.
    """

    def __init__(self, *, own_key: bool = False) -> None:
        self.trouble = ""
        self.advice = ""
        self._own_key = own_key
        self._told: dict[tuple[str, int], str] = {}

    def text(self, event: FlockEvent) -> str:
        """The line for an event, empty when it is not worth one."""
        match event.type:
            case "peer":
                return line_of(event)
            case "connecting":
                return line_of(event) if not event.peer.retries else ""
            case "connect-failed":
                return self._once(event.peer.host, event.peer.port, line_of(event))
            case "handshake-timeout":
                return self._once(event.info.host, 0, line_of(event))
            case "connection-closed" if isinstance(event.error, SelfConnection):
                return self._same_key(event.info.host)
            case "connection-closed" if event.connection is None and event.error is not None:
                return self._once(event.info.host, 0, line_of(event))
            case "peer-banned" if event.reason == "detected-self":
                return self._same_key(event.peer.host)
            case "handler-failed":
                return line_of(event)
            case _:
                return ""

    def _same_key(self, host: str) -> str:
        """Whoever has a fresh key and meets it has met itself, which is not worth a line."""
        if not self._own_key:
            return ""
        self.advice = ANOTHER_KEY
        self.trouble = f"{host} {SAME_KEY}"
        return self._once(host, 0, f"{self.trouble}: {ANOTHER_KEY}")

    def _once(self, host: str, port: int, text: str) -> str:
        if not self.advice:
            self.trouble = text
        if self._told.get((host, port)) == text or len(self._told) >= PLACES_TOLD:
            return ""
        self._told[host, port] = text
        return text


PLACES_TOLD = 100
"""Places whose troubles are told; a scanner could go on for ever."""
SAME_KEY = "proves the very key of this side"
ANOTHER_KEY = "where that is another process, give one of the two another --key"


async def narrate(
    events: Subscription[FlockEvent],
    output: Output,
    *,
    who: str = "",
    brief: Brief | None = None,
) -> None:
    """Tell every event until the flock closes; `brief` leaves out the steps in between."""
    prefix = f"{who:<5} " if who else ""
    async with events:
        async for event in events:
            if event.type == "lagged":
                _tell_missed(event.missed, prefix, output)
                continue
            text = line_of(event) if brief is None else brief.text(event)
            output.event(event.type, prefix + text if text else "", **_fields(event, who))


async def tell_staging(
    events: Subscription[StagingEvent], output: Output, *, who: str = "", brief: bool = False
) -> None:
    """Tell who enters and leaves the pool of candidates; `brief` has no line for who leaves."""
    prefix = f"{who:<5} " if who else ""
    named = {"who": who} if who else {}
    async with events:
        async for event in events:
            if event.type == "lagged":
                _tell_missed(event.missed, prefix, output)
                continue
            address = str(event.address)
            text = "" if brief and event.type != "staged" else f"{prefix}{event.type} {address}"
            output.event(event.type, text, **named, peer=address)


def _tell_missed(missed: int, prefix: str, output: Output) -> None:
    output.event("lagged", f"{prefix}{missed} events were not told", missed=missed)


def line_of(event: FlockEvent) -> str:
    """One event in words."""
    return _LINES[event.type](event)


def path_of(connection: Connection) -> str:
    """Which way data takes: transport, direction, place, key."""
    host, port = connection.remote_address
    way = "dialled" if connection.initiator else "accepted"
    return (
        f"path: {connection.type} {way} {show(host, port)} ({whereabouts(host)}), "
        f"{connection.handshake} with key {key_text(connection.remote_key)}"
    )


def path_fields(connection: Connection) -> dict[str, object]:
    """`path_of` as data."""
    host, port = connection.remote_address
    return {
        "host": host,
        "port": port,
        "place": whereabouts(host),
        "initiator": connection.initiator,
        "transport": connection.type,
        "handshake": connection.handshake,
        "key": connection.remote_key,
    }


def whereabouts(host: str) -> str:
    """Where an IP address is: `this machine`, `local network` or `routed`."""
    from covey.peer_type import peer_type

    if _is_own(host):
        return "this machine"
    return "local network" if peer_type(host) == "lan" else "routed"


def _is_own(host: str) -> bool:
    """Whether this machine has the address: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(socket.getaddrinfo(host, 0, family, flags=socket.AI_NUMERICHOST)[0][4])
        except OSError:
            return False
    return True


def _place(peer: Peer) -> str:
    return show(peer.host, peer.port)


def _remote(info: ConnectionInfo) -> str:
    return show(info.host, info.port)


def _fields(event: FlockEvent, who: str) -> dict[str, object]:
    fields = {name: getattr(event, name) for name in event.__dataclass_fields__ if name != "type"}
    if (connection := fields.get("connection")) is not None:
        fields["connection"] = connection.id
    return {"who": who, **fields} if who else fields


def _peer(event: PeerDiscovered) -> str:
    return f"discovered {_place(event.peer)} by {event.peer.source}"


def _rejected(event: PeerRejected) -> str:
    return f"rejected {_place(event.peer)}: {event.text or event.reason}"


def _banned(event: PeerBanned) -> str:
    return f"banned {_place(event.peer)}: {event.reason}"


def _connecting(event: PeerConnecting) -> str:
    again = f", attempt {event.peer.retries + 1}" if event.peer.retries else ""
    return f"connecting to {_place(event.peer)}{again}"


def _connect_failed(event: PeerConnectFailed) -> str:
    return f"no connection to {_place(event.peer)}: {event.error}"


def _handshaking(event: Handshaking) -> str:
    return f"{event.info.type} is up, handshaking with {_remote(event.info)}"


def _handshake_timeout(event: HandshakeTimedOut) -> str:
    return f"{_remote(event.info)} did not complete the handshake in time"


def _connected(event: PeerConnected) -> str:
    return path_of(event.connection)


def _redundant(event: RedundantConnection) -> str:
    return f"dropped a second connection with {_remote(event.info)} ({event.cause})"


def _closed(event: ConnectionClosed) -> str:
    said = "" if event.text == event.reason else event.text  # its bare name says little
    why = said or event.error or _ENDS.get(str(event.reason), "")
    return f"connection with {_remote(event.info)} closed" + (f": {why}" if why else "")


def _dropped(event: PeerDropped) -> str:
    text = f"gave up {_place(event.peer)} after {event.peer.retries} attempts"
    return f"{text}: {event.error}" if event.error else text


def _handler_failed(event: HandlerFailed) -> str:
    return f"the handler of {_remote(event.info)} failed: {event.error}"


def _listening(event: Listening) -> str:
    return f"listening on port {event.port}"


def _cannot_listen(event: FlockError) -> str:
    return f"cannot listen: {event.error}"


_ENDS: Final[Mapping[str, str]] = {
    "local": "this side ended it",
    "remote-end": "the other side ended it",
    "reset": "it was cut",
    "protocol": "the other side broke a rule",
    "timeout": "the other side was silent for too long",
    "handshake": "its handshake failed",
    "refused": "it is not let in",
    "limit": "there are enough",
    "redundant": "another one with the same peer is kept",
    "self": "it led back here",
    "shutdown": "this side is closing",
    "aborted": "this side called it off",
}
"""What is said of each `CloseReason` of a connection that nobody gave words for."""

_LINES: Final[Mapping[str, Callable[[Any], str]]] = {
    "peer": _peer,
    "peer-rejected": _rejected,
    "peer-banned": _banned,
    "connecting": _connecting,
    "connect-failed": _connect_failed,
    "handshaking": _handshaking,
    "handshake-timeout": _handshake_timeout,
    "connection": _connected,
    "redundant-connection": _redundant,
    "connection-closed": _closed,
    "drop": _dropped,
    "handler-failed": _handler_failed,
    "listening": _listening,
    "error": _cannot_listen,
    "close": lambda _: "closed",
}
"""What is said of each kind of event; a test holds it against `FlockEvent`."""
