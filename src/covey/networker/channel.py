"""The channel `covey/networker` on one connection (`networker.md` section 4)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from covey.errors import ClosedError, ProtocolError, UsageError
from covey.limits import Limits
from covey.net.connection import Connection
from covey.net.extensions import OutgoingBacklog
from covey.net.mux import Channel
from covey.networker.messages import (
    MAX_NAMES,
    PROTOCOL,
    VERSION,
    WITHDRAWN,
    Names,
    Sent,
    Version,
    names_codec,
    sent_codec,
    version_codec,
)

logger = logging.getLogger("covey.networker")


class ChannelOwner(Protocol):
    """What a channel needs of the extensions of its side."""

    @property
    def names(self) -> Sequence[str]:
        """The names registered now."""

    def received(self, channel: ExtensionChannel, message: Sent) -> None:
        """A message came."""


class ExtensionChannel:
    """Extension messages to and from one peer, for as long as its connection lasts.

    A remote that does not know the channel rejects it: `send` raises, nothing else is touched. If
    it opens the channel later, because its networker starts later, the channel is there again.
    """

    __slots__ = (
        "_backlog", "_channel", "_connection", "_ext", "_limits", "_names", "_owner", "_refused",
        "names",
    )  # fmt: skip

    def __init__(self, connection: Connection, owner: ChannelOwner, limits: Limits) -> None:
        self._connection = connection
        self._owner = owner
        self._limits = limits
        self._channel: Channel | None = None
        self._refused = False
        self._backlog = OutgoingBacklog(limits.extension_backlog)
        self.names: set[str] = set()

    def __repr__(self) -> str:
        return f"<ExtensionChannel {'open' if self.opened else 'closed'}>"

    @property
    def opened(self) -> bool:
        """Whether the remote has opened it too."""
        return self._channel is not None and self._channel.opened

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent: rejected, given up, or over with the connection."""
        return self._channel is None or self._channel.closed

    @property
    def version(self) -> int | None:
        """The version that both sides speak; None before the remote told its own."""
        told = self._channel.handshake if self._channel is not None else None
        return None if told is None else min(VERSION, told.version)

    @property
    def remote_names(self) -> frozenset[str]:
        """The extensions that the remote has told of and not withdrawn."""
        return frozenset(self.names)

    def open(self) -> None:
        """Open it, tell our names, and be there when the remote opens it later."""
        self._connection.mux.pair(PROTOCOL, self._asked)
        self._open()

    def close(self) -> None:
        """Close it and accept it no more. May be called again."""
        self._refused = True
        if self._channel is not None:
            self._channel.close()

    def send(self, name: str, payload: bytes) -> bool:
        """Send one message; False: so much waits for this peer that the next one should wait too.

        `ClosedError` when the remote has no such channel, `LimitError` when it does not read and
        `Limits.extension_backlog` bytes wait for it.
        """
        channel = self._channel
        if channel is None or channel.closed:
            raise ClosedError("this peer has no channel for extensions")
        self._backlog.add(len(payload), drained=channel.drained)
        return self._ext.send(Sent(name, payload))

    def tell(self, names: Sequence[str], *, withdrawn: bool) -> None:
        """Tell of names that were registered or withdrawn; nothing when nobody listens."""
        if self._channel is not None and not self._channel.closed:
            self._names.send(Names(WITHDRAWN if withdrawn else 0, list(names)))

    # Inside

    def _open(self) -> None:
        try:
            channel = self._connection.mux.create_channel(
                PROTOCOL,
                handshake=version_codec,
                on_close=self._on_close,
            )
        except UsageError as error:  # two networkers on one connection: the first one has it
            logger.warning("no extensions on %r: %s", self._connection, error)
            return
        self._channel = channel
        self._ext = channel.add_message(sent_codec, self._on_ext)
        self._names = channel.add_message(names_codec, self._on_names)
        self._backlog = OutgoingBacklog(self._limits.extension_backlog)
        self.names.clear()
        channel.open(Version())
        self.tell(self._owner.names, withdrawn=False)

    def _asked(self, channel_id: bytes | None) -> None:
        """The remote opens it while it is not open here."""
        if channel_id is None and self.closed and not self._refused:
            self._open()

    def _on_ext(self, message: Sent) -> None:
        self._owner.received(self, message)

    def _on_names(self, told: Names) -> None:
        if told.withdrawn:
            self.names.difference_update(told.names)
            return
        self.names.update(told.names)
        if len(self.names) > MAX_NAMES:
            raise ProtocolError(f"the remote registered more than {MAX_NAMES} extensions")

    def _on_close(self, _remote: bool, channel: Channel) -> None:
        if channel is self._channel:
            self.names.clear()
