"""Messages of applications beside the blocks of a log (`hypercore.md` section 12)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from covey.errors import DecodeError, UsageError
from covey.feed.messages import MAX_EXTENSION_NAME
from covey.wire.named_encodings import Encoding, conversion

if TYPE_CHECKING:
    from covey.store.feed_peer import FeedPeer
    from covey.store.open_log import OpenLog

logger = logging.getLogger("covey.store.extensions")

OnExtension: TypeAlias = "Callable[[Any, FeedPeer], object]"
"""Gets a decoded message and who sent it."""


class Extension:
    """One kind of messages among the peers of a feed; made by `Feed.register_extension`.

    Peers that come later do not get what was sent before, and those without an extension of this
    name ignore it.
    """

    __slots__ = ("_decode", "_encode", "_log", "name", "on_message")

    def __init__(
        self,
        log: OpenLog,
        name: str,
        *,
        encoding: Encoding,
        on_message: OnExtension | None,
    ) -> None:
        size = len(name.encode())
        if not 0 < size <= MAX_EXTENSION_NAME:
            raise UsageError(f"an extension's name has 1 to {MAX_EXTENSION_NAME} bytes, not {size}")
        self._log: OpenLog | None = log
        self._encode, self._decode = conversion(encoding)
        self.name = name
        self.on_message = on_message

    def send(self, message: Any, peer: FeedPeer) -> None:
        """Send to one peer; nothing when it is gone. `EncodeError` when it cannot be encoded."""
        payload = self._encode(message)
        if self._log is not None:
            self._log.send_extension(self.name, payload, [peer])

    def broadcast(self, message: Any) -> None:
        """Send to every peer there is now. `EncodeError` when it cannot be encoded."""
        payload = self._encode(message)
        if self._log is not None:
            self._log.send_extension(self.name, payload, list(self._log.peers.values()))

    def destroy(self) -> None:
        """Neither send nor receive any more. Twice is fine."""
        log, self._log = self._log, None
        if log is not None:
            log.extensions.pop(self.name, None)

    def receive(self, payload: bytes, peer: FeedPeer) -> None:
        """A message came from `peer`. What does not decode is dropped, a failing callback logged.

        For the feed.
        """
        if self.on_message is None:
            return
        try:
            message = self._decode(payload)
        except DecodeError as error:
            logger.debug("extension %r: %r sent what does not decode: %s", self.name, peer, error)
            return
        try:
            self.on_message(message, peer)
        except Exception:
            logger.exception("the callback of extension %r failed", self.name)
