"""What a flock does, in one line of plain words for each event, or as data."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from covey.cli.output import Output, key_text

if TYPE_CHECKING:
    from covey.events import Subscription
    from covey.flock.events import Connected, ConnectionInfo, FlockEvent, Peer


async def narrate(
    events: Subscription[FlockEvent], output: Output, *, who: str = "", brief: bool = False
) -> None:
    """Tell every event until the flock closes; `brief` leaves out the steps in between."""
    prefix = f"{who:<5} " if who else ""
    async with events:
        async for event in events:
            if event.type == "lagged":
                output.event("lagged", f"{prefix}{event.missed} events were not told")
                continue
            text = line_of(event)
            if brief and event.type not in BRIEF:
                text = ""
            output.event(event.type, prefix + text if text else "", **_fields(event, who))


BRIEF = frozenset({"peer", "connecting", "connect-failed", "connection", "handler-failed"})
"""Event types that a person wants to see who only waits for a connection."""


def line_of(event: FlockEvent) -> str:  # noqa: C901, PLR0912 - one line for each kind of event
    """One event in words."""
    match event.type:
        case "peer":
            return f"discovered {_place(event.peer)} by {event.peer.source}"
        case "peer-rejected":
            return f"rejected {_place(event.peer)}: {event.text or event.reason}"
        case "peer-banned":
            return f"banned {_place(event.peer)}: {event.reason}"
        case "connecting":
            again = f", attempt {event.peer.retries + 1}" if event.peer.retries else ""
            return f"connecting to {_place(event.peer)}{again}"
        case "connect-failed":
            return f"no connection to {_place(event.peer)}: {event.error}"
        case "handshaking":
            return f"{event.info.type} is up, handshaking with {_remote(event.info)}"
        case "handshake-timeout":
            return f"{_remote(event.info)} did not complete the handshake in time"
        case "connection":
            return path_of(event)
        case "redundant-connection":
            return f"dropped a second connection with {_remote(event.info)} ({event.cause})"
        case "connection-closed":
            why = f": {event.error}" if event.error else ""
            return f"connection with {_remote(event.info)} closed{why}"
        case "drop":
            return f"gave up {_place(event.peer)} after {event.peer.retries} attempts"
        case "handler-failed":
            return f"the handler of {_remote(event.info)} failed: {event.error}"
        case "listening":
            return f"listening on port {event.port}"
        case "error":
            return f"cannot listen: {event.error}"
        case "close":
            return "closed"
        case _:
            assert_never(event.type)


def path_of(event: Connected) -> str:
    """Which way data takes: transport, place, direction, key."""
    info, connection = event.info, event.connection
    way = "dialled" if info.initiator else "accepted"
    where = {"lan": "this machine or network"}.get(connection.address.type or "", "routed")
    return (
        f"path: {info.type} {way} {_remote(info)} ({where}), {connection.handshake} "
        f"with key {key_text(connection.remote_key)}"
    )


def _place(peer: Peer) -> str:
    return f"{peer.host}:{peer.port}"


def _remote(info: ConnectionInfo) -> str:
    return f"{info.host}:{info.port}"


def _fields(event: FlockEvent, who: str) -> dict[str, object]:
    fields = {name: getattr(event, name) for name in event.__dataclass_fields__ if name != "type"}
    return {"who": who, **fields} if who else fields
