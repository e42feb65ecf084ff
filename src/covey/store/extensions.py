"""Messages of applications beside the blocks of a log (`hypercore.md` section 12)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from covey.errors import ClosedError, CoveyError, EncodeError, LimitError, UsageError
from covey.feed.messages import MAX_BLOCK, MAX_EXTENSION_NAME
from covey.feed.replication_events import ReplicationError
from covey.net.extensions import BaseExtension, OnError, OutgoingBacklog
from covey.net.inbox import Inbox
from covey.owned_tasks import OwnedTasks
from covey.store.feed_peer import FeedPeer
from covey.wire.encoding import string
from covey.wire.named_encodings import Encoding

if TYPE_CHECKING:
    from covey.feed.replication_peer import ReplicationPeer

logger = logging.getLogger("covey.store.extensions")

OnMessage: TypeAlias = "Callable[[Any, FeedPeer], Awaitable[object] | object]"
"""Gets the decoded message and who sent it. What it returns is awaited if possible: then the next
message of that peer waits."""


class ExtensionHost(Protocol):
    """What the extensions need of their log."""

    @property
    def peers(self) -> Mapping[ReplicationPeer, FeedPeer]:
        """The peers there are now."""

    def let_go(self, peer: FeedPeer, error: CoveyError) -> None:
        """Close the channel to a peer."""


class Extension(BaseExtension[FeedPeer]):
    """One kind of messages among the peers of a feed; made by `Feed.register_extension`.

    Peers that come later do not get what was sent before, and those without an extension of this
    name ignore it. `on_message(message, peer)` and `on_error(error)` may be replaced at any time.
    """

    __slots__ = ("_owner",)

    logger: ClassVar[logging.Logger] = logger
    max_payload: ClassVar[int] = MAX_BLOCK

    def __init__(
        self,
        owner: Extensions,
        name: str,
        *,
        encoding: Encoding = "binary",
        on_message: OnMessage | None = None,
        on_error: OnError | None = None,
    ) -> None:
        super().__init__(name, encoding=encoding, on_message=on_message, on_error=on_error)
        self._owner: Extensions | None = owner

    def __repr__(self) -> str:
        return f"<Extension {self.name!r}{' destroyed' if self.destroyed else ''}>"

    @property
    def destroyed(self) -> bool:
        """Whether it neither sends nor receives any more."""
        return self._owner is None

    def send(self, message: Any, peer: FeedPeer) -> bool:
        """Send to one peer; False: so much waits for it that the next message should wait too.

        Raises `UsageError` without a peer of this log, `ClosedError` when the extension was
        destroyed or the peer is gone, `LimitError` when it does not read, and `EncodeError`, also
        above 15 MiB.
        """
        if self._owner is None:
            raise ClosedError(f"the extension {self.name!r} was destroyed")
        self._owner.check_peer(peer)
        return self._owner.send(self.name, self._encoded(message), peer)

    def broadcast(self, message: Any) -> None:
        """Send to every peer there is now.

        One that does not read while `Limits.extension_backlog` bytes wait for it is left out. Does
        nothing once the extension is destroyed. Raises `EncodeError`, also above 15 MiB.
        """
        if self._owner is None:
            return
        payload = self._encoded(message)
        for peer in self._owner.everybody:
            if not peer.replication.active:
                continue
            try:
                self._owner.send(self.name, payload, peer)
            except LimitError as error:
                logger.warning("extension %r: %s; it is left out", self.name, error)

    def destroy(self) -> None:
        """Neither send nor receive any more. May be called again."""
        owner, self._owner = self._owner, None
        self.on_message = None
        self.on_error = None
        if owner is not None:
            owner.withdraw(self)


class Extensions:
    """The extensions of one log, and what waits of and for each of its peers."""

    __slots__ = ("_backlog", "_host", "_inboxes", "_outgoing", "_registered", "_tasks")

    def __init__(self, host: ExtensionHost, tasks: OwnedTasks, *, backlog: int) -> None:
        self._host = host
        self._tasks = tasks
        self._backlog = backlog
        self._registered: dict[str, Extension] = {}
        self._inboxes: dict[FeedPeer, Inbox[tuple[str, bytes]]] = {}
        self._outgoing: dict[FeedPeer, OutgoingBacklog] = {}

    @property
    def everybody(self) -> list[FeedPeer]:
        """The peers there are now."""
        return list(self._host.peers.values())

    def register(
        self,
        name: str,
        *,
        encoding: Encoding,
        on_message: OnMessage | None,
        on_error: OnError | None,
    ) -> Extension:
        """A new extension; `UsageError` for a name that is taken, or none."""
        _check_name(name)
        if name in self._registered:
            raise UsageError(f"the extension {name!r} is registered already")
        extension = self._registered[name] = Extension(
            self, name, encoding=encoding, on_message=on_message, on_error=on_error
        )
        return extension

    def withdraw(self, extension: Extension) -> None:
        """Forget an extension."""
        if self._registered.get(extension.name) is extension:
            del self._registered[extension.name]

    def check_peer(self, peer: FeedPeer) -> None:
        """`UsageError` for what is no peer of this log, `ClosedError` for one that is gone."""
        if not isinstance(peer, FeedPeer):
            raise UsageError("the peer to send to must be specified")
        if self._host.peers.get(peer.replication) is peer:
            return
        if peer.replication.active:
            raise UsageError(f"{peer!r} is a peer of another feed")
        raise ClosedError(f"{peer!r} is not connected any more")

    def send(self, name: str, payload: bytes, peer: FeedPeer) -> bool:
        """Send to a peer there is; False and `LimitError` as `Extension.send` tells."""
        remote = peer.replication
        outgoing = self._outgoing.get(peer)
        if outgoing is None:
            outgoing = self._outgoing[peer] = OutgoingBacklog(self._backlog)
        outgoing.add(len(payload), drained=remote.writable)
        remote.send_extension(name, payload)
        return remote.writable

    def received(self, peer: FeedPeer, name: str, payload: bytes) -> None:
        """A message came: to the extension of its name, or dropped when there is none.

        While a handler takes its time those after it wait, up to `Limits.extension_backlog`.
        """
        if name not in self._registered:
            return
        inbox = self._inboxes.get(peer)
        if inbox is None:
            inbox = self._inboxes[peer] = Inbox(
                self._tasks,
                lambda message: self._deliver(peer, *message),
                backlog=self._backlog,
                name="covey feed extension",
            )
        if not inbox.take((name, payload), len(payload)):
            error = ReplicationError("the peer sends extension messages too fast")
            self._host.let_go(peer, error)

    def peer_gone(self, peer: FeedPeer) -> None:
        """A peer is gone: what waits of it is dropped."""
        self._outgoing.pop(peer, None)
        inbox = self._inboxes.pop(peer, None)
        if inbox is not None:
            inbox.close()

    def _deliver(self, peer: FeedPeer, name: str, payload: bytes) -> list[Awaitable[object]]:
        extension = self._registered.get(name)
        result = None if extension is None else extension.receive(payload, peer)
        return [] if result is None else [result]


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise UsageError(f"the name of an extension is text, not {name!r}")
    try:
        size = len(string.text_to_bytes(name))
    except EncodeError as error:
        raise UsageError(f"{name!r} is no name of an extension: {error}") from error
    if not 0 < size <= MAX_EXTENSION_NAME:
        raise UsageError(f"an extension's name has 1 to {MAX_EXTENSION_NAME} bytes, not {size}")
