"""One connection as `covey pipe` uses it: a channel, a proof from each side, then messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from covey.errors import ClosedError, DecodeError
from covey.net.connection import Connection
from covey.net.mux import Channel
from covey.wire.encoding import raw
from covey.wire.topic_pipe import BUSY, KINDS, PROTOCOL, Hello, Message, stop_message
from covey.wire.topic_proof import TopicSecret

FAREWELL = 2.0
"""Seconds given to a peer to close too, so that our last message is sure to have arrived."""

SAME_TOPIC = "the two sides name different topics: compare them letter by letter"
SAME_VERSION = "do both sides run the same version of covey?"


class LinkOwner(Protocol):
    """Who decides about a link and takes what arrives."""

    secret: TopicSecret

    def proven(self, link: Link, hello: Hello) -> None:
        """The remote of `link` knows the topic."""

    def refused(self, connection: Connection, why: str, advice: str = "") -> None:
        """The remote is not one for this pipe; `advice`: what to do if it should be."""

    def received(self, link: Link, kind: int, payload: bytes) -> None:
        """A message came from a proven remote."""


class Link:
    """One connection with a peer, from our open of the channel to its end.

    `over` is set when the channel ended, or never came to be; `dismissed` when this side or the
    other decided that this is no pipe for the two of them, so that a new connection would not help.
    `hello` is what this side tells here and on no other link, `era` when that was true: how many
    links had been the pipe's before.
    """

    def __init__(self, owner: LinkOwner, connection: Connection, hello: Hello, era: int) -> None:
        self.connection = connection
        self.hello = hello
        self.era = era
        self.over = asyncio.Event()
        self.proven = asyncio.Event()
        self._settled = asyncio.Event()  # proven or over
        self.dismissed = False
        self._owner = owner
        self.channel: Channel = connection.mux.create_channel(
            PROTOCOL,
            handshake=raw,
            on_open=self._on_open,
            on_close=self._on_close,
        )
        self._messages = tuple(
            self.channel.add_message(raw, self._receiver(kind)) for kind in range(KINDS)
        )

    @property
    def open(self) -> bool:
        """Whether messages can be sent."""
        return self.proven.is_set() and not self.over.is_set() and not self.channel.closed

    def say_hello(self) -> None:
        """Open the channel."""
        self.channel.open(self.hello.encode())

    def send(self, messages: Sequence[Message]) -> None:
        """Send, if this link still lives; what is lost with it, the pipe keeps."""
        if not self.open:
            return
        try:
            for kind, payload in messages:
                self._messages[kind].send(payload)
        except ClosedError:
            return  # `over` follows

    async def until_proven(self, seconds: float) -> bool:
        """Wait for the remote's proof; False when the link ended first. Raises `TimeoutError`."""
        async with asyncio.timeout(seconds):
            await self._settled.wait()
        return self.proven.is_set()

    def turn_away(self) -> None:
        """Tell a peer that knows the topic that this side has its partner already."""
        self.dismissed = True
        self.send([(BUSY, b"")])
        self.channel.close()

    async def part(self, reason: str | None = None) -> None:
        """End it so that everything sent arrives; with `reason` this side gives up."""
        if reason is not None:
            self.send([stop_message(reason)])
        connection = self.connection
        if not self.channel.closed:
            self.channel.close()
        try:
            async with asyncio.timeout(FAREWELL):
                if not connection.closed:
                    connection.mux.flush()
                    await connection.end()
                await connection.wait_closed()
        except (TimeoutError, ClosedError):
            return  # it has everything, or will find out

    def _on_open(self, handshake: bytes, channel: Channel) -> None:
        connection, owner = self.connection, self._owner
        try:
            hello = Hello.decode(handshake)
        except DecodeError as error:
            self._refuse(channel, f"it does not speak {PROTOCOL}: {error}", SAME_VERSION)
            return
        hash_ = connection.handshake_hash
        if hash_ is None or not owner.secret.accepts(
            hello.proof, hash_, is_initiator=connection.initiator
        ):
            self._refuse(channel, "it does not know the topic", SAME_TOPIC)
            return
        self.proven.set()
        self._settled.set()
        owner.proven(self, hello)

    def _refuse(self, channel: Channel, why: str, advice: str) -> None:
        self.dismissed = True
        self._owner.refused(self.connection, why, advice)
        channel.close()

    def _on_close(self, remote: bool, channel: Channel) -> None:  # noqa: ARG002
        self.over.set()
        self._settled.set()

    def _receiver(self, kind: int) -> Any:
        def receive(payload: bytes) -> None:
            if self.proven.is_set():
                self._owner.received(self, kind, bytes(payload))

        return receive
