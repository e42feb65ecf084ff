"""Messages of applications between networkers, beside the logs (`networker.md` rows 26 to 30).

They need a connection only, no log. Extensions that belong to a log are `Feed.register_extension`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

from covey.errors import ClosedError, LimitError, UsageError
from covey.net.extensions import BaseExtension, OnError
from covey.net.inbox import Inbox
from covey.networker.channel import ExtensionChannel
from covey.networker.events import Peer
from covey.networker.messages import MAX_NAMES, MAX_PAYLOAD, Sent, name_bytes
from covey.networker.stream import PeerStream
from covey.owned_tasks import OwnedTasks
from covey.wire.named_encodings import Encoding, conversion

logger = logging.getLogger("covey.networker")

OnMessage: TypeAlias = Callable[[Any, Peer], Awaitable[object] | object]
"""Gets the decoded message and who sent it. What it returns is awaited if possible: then the next
message of that peer waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionHandlers:
    """An extension in one object: its name, its encoding, and what it calls."""

    name: str = ""
    encoding: Encoding = "binary"
    on_message: OnMessage | None = None
    on_error: OnError | None = None


MakeHandlers: TypeAlias = "Callable[[Extension], ExtensionHandlers]"
"""Gets the extension, so that its handlers can use it."""


class ExtensionOwner(Protocol):
    """What an extension needs of its networker."""

    def channel_of(self, peer: Peer) -> ExtensionChannel | None:
        """The channel to a peer; None when it is not connected any more."""

    @property
    def channels(self) -> Sequence[ExtensionChannel]:
        """The channels to all peers."""

    def withdraw(self, extension: Extension) -> None:
        """Forget an extension."""


class Extension(BaseExtension[Peer]):
    """One kind of messages among networkers; made by `Networker.register_extension`.

    `on_message(message, peer)` and `on_error(error)` may be replaced at any time.
    """

    __slots__ = ("_owner",)

    logger: ClassVar[logging.Logger] = logger
    max_payload: ClassVar[int] = MAX_PAYLOAD

    def __init__(self, owner: ExtensionOwner, name: str) -> None:
        super().__init__(name)
        self._owner: ExtensionOwner | None = owner

    def __repr__(self) -> str:
        return f"<Extension {self.name!r}{' destroyed' if self.destroyed else ''}>"

    @property
    def destroyed(self) -> bool:
        """Whether it neither sends nor receives any more."""
        return self._owner is None

    def send(self, message: Any, peer: Peer) -> bool:
        """Send to one peer; False: so much waits for it that the next message should wait too.

        Raises `UsageError` without a peer, `ClosedError` when the extension was destroyed, the peer
        is gone or has no networker, `LimitError` when it does not read, and `EncodeError`.
        """
        if self._owner is None:
            raise ClosedError(f"the extension {self.name!r} was destroyed")
        if not isinstance(peer, Peer):
            raise UsageError("the peer to send to must be specified")
        channel = self._owner.channel_of(peer)
        if channel is None:
            raise ClosedError(f"{peer!r} is not connected any more")
        return channel.send(self.name, self._encoded(message))

    def broadcast(self, message: Any) -> None:
        """Send to every peer there is now; those without a networker are left out.

        So is one that does not read while `Limits.extension_backlog` bytes wait for it. Does
        nothing once the extension is destroyed. Raises `EncodeError`.
        """
        if self._owner is None:
            return
        payload = self._encoded(message)
        for channel in self._owner.channels:
            if channel.closed:
                continue
            try:
                channel.send(self.name, payload)
            except LimitError as error:
                logger.warning("extension %r: %s; it is left out", self.name, error)

    def destroy(self) -> None:
        """Neither send nor receive any more, on no connection. May be called again."""
        owner, self._owner = self._owner, None
        self.on_message = None
        self.on_error = None
        if owner is not None:
            owner.withdraw(self)

    # For the networker

    def use(self, handlers: ExtensionHandlers) -> None:
        """Take encoding and handlers."""
        self._convert = conversion(handlers.encoding)
        self.on_message = handlers.on_message
        self.on_error = handlers.on_error


class Extensions:
    """The registered extensions, and their channel on each connection.

    The same name may be registered several times: each gets every message.
    """

    def __init__(self, tasks: OwnedTasks, *, backlog: int) -> None:
        self._tasks = tasks
        self._backlog = backlog
        self._registered: dict[str, list[Extension]] = {}
        self._streams: dict[ExtensionChannel, PeerStream] = {}
        self._inboxes: dict[ExtensionChannel, Inbox[Sent]] = {}

    @property
    def names(self) -> Sequence[str]:
        """The names registered now."""
        return tuple(self._registered)

    @property
    def channels(self) -> Sequence[ExtensionChannel]:
        """The channels to all peers."""
        return tuple(self._streams)

    def register(
        self,
        name: str | ExtensionHandlers | MakeHandlers,
        handlers: ExtensionHandlers | MakeHandlers | None = None,
    ) -> Extension:
        """A new extension, on all present and future connections.

        `handlers` may come in place of the name when they have one. Raises `EncodeError` for a name
        that is too long or empty, `LimitError` above 1,024 names.
        """
        if not isinstance(name, str) and handlers is not None:
            raise UsageError("handlers are given once: alone, or after the name")
        given = handlers if isinstance(name, str) else name
        extension = Extension(self, name if isinstance(name, str) else "")
        made = given(extension) if callable(given) else given
        if made is not None:
            extension.name = extension.name or made.name
            extension.use(made)
        name_bytes(extension.name)
        self._add(extension)
        return extension

    def _add(self, extension: Extension) -> None:
        known = self._registered.get(extension.name)
        if known is not None:
            known.append(extension)
            return
        if len(self._registered) >= MAX_NAMES:
            raise LimitError(
                f"a networker has at most {MAX_NAMES} extensions", limit="names", allowed=MAX_NAMES
            )
        self._registered[extension.name] = [extension]
        self._tell(extension.name, withdrawn=False)

    def withdraw(self, extension: Extension) -> None:
        """Forget an extension."""
        known = self._registered.get(extension.name, [])
        if extension in known:
            known.remove(extension)
            if not known:
                del self._registered[extension.name]
                self._tell(extension.name, withdrawn=True)

    def destroy(self) -> None:
        """Destroy every extension."""
        for known in tuple(self._registered.values()):
            for extension in tuple(known):
                extension.destroy()

    def _tell(self, name: str, *, withdrawn: bool) -> None:
        for channel in self.channels:
            channel.tell([name], withdrawn=withdrawn)

    # Connections

    def attach(self, stream: PeerStream, channel: ExtensionChannel) -> None:
        """A peer is connected."""
        self._streams[channel] = stream
        stream.channel = channel

    def detach(self, stream: PeerStream) -> None:
        """A peer is gone: what waits of it is dropped."""
        channel = stream.channel
        if channel is None:
            return
        self._streams.pop(channel, None)
        inbox = self._inboxes.pop(channel, None)
        if inbox is not None:
            inbox.close()
        channel.close()

    def channel_of(self, peer: Peer) -> ExtensionChannel | None:
        """The channel to a peer; None when it is not connected any more."""
        channel = peer.stream.channel
        return channel if channel is not None and channel in self._streams else None

    def received(self, channel: ExtensionChannel, message: Sent) -> None:
        """A message came: to every extension of its name, in order, or dropped when there is none.

        While a handler takes its time those after it wait, up to `Limits.extension_backlog`.
        """
        if channel not in self._streams or message.name not in self._registered:
            return
        inbox = self._inboxes.get(channel)
        if inbox is None:
            inbox = Inbox(
                self._tasks,
                lambda one: self._deliver(channel, one),
                backlog=self._backlog,
                name="covey networker extension",
            )
            self._inboxes[channel] = inbox
        if not inbox.take(message, len(message.payload)):
            logger.warning("%r sends extension messages too fast: its channel is closed", channel)
            inbox.drop()
            channel.close()

    def _deliver(self, channel: ExtensionChannel, message: Sent) -> list[Awaitable[object]]:
        stream = self._streams.get(channel)
        if stream is None or stream.peer is None:
            return []
        extensions = tuple(self._registered.get(message.name, ()))
        results = [extension.receive(message.payload, stream.peer) for extension in extensions]
        return [result for result in results if result is not None]
