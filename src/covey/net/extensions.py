"""What messages of applications have in common, beside a log and between networkers."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from covey.errors import CoveyError, DecodeError, EncodeError, LimitError
from covey.wire.named_encodings import Encoding, conversion

P = TypeVar("P")

OnError: TypeAlias = Callable[[Exception], object]
"""Gets the error of a message that does not decode."""


class BaseExtension(Generic[P]):
    """Encodes, decodes and calls the handlers of one kind of messages; `P` is who sends them.

    `on_message(message, peer)` and `on_error(error)` may be replaced at any time.
    """

    __slots__ = ("_convert", "name", "on_error", "on_message")

    logger: ClassVar[logging.Logger] = logging.getLogger("covey.net.extensions")
    max_payload: ClassVar[int]
    """Bytes of one message."""

    def __init__(
        self,
        name: str,
        *,
        encoding: Encoding = "binary",
        on_message: Callable[[Any, P], Awaitable[object] | object] | None = None,
        on_error: OnError | None = None,
    ) -> None:
        self.name = name
        self._convert = conversion(encoding)
        self.on_message = on_message
        self.on_error = on_error

    # Inside

    def receive(self, payload: bytes, peer: P) -> Awaitable[object] | None:
        """Decode a message and hand it over; returns what is to be awaited before the next one."""
        if self.on_message is None:
            return None
        try:
            message = self._convert.decode(payload)
        except DecodeError as error:
            self._tell_error(error, peer)
            return None
        try:
            result = self.on_message(message, peer)
        except Exception:
            self.logger.exception("the handler of extension %r failed", self.name)
            return None
        return result if inspect.isawaitable(result) else None

    def _tell_error(self, error: CoveyError, peer: P) -> None:
        if self.on_error is None:
            said = "extension %r: a message of %r is dropped: %s"
            self.logger.debug(said, self.name, peer, error)
            return
        try:
            self.on_error(error)
        except Exception:
            self.logger.exception("the error handler of extension %r failed", self.name)

    def _encoded(self, message: Any) -> bytes:
        payload = self._convert.encode(message)
        if len(payload) > self.max_payload:
            raise EncodeError(f"a message has at most {self.max_payload} bytes, not {len(payload)}")
        return payload


class OutgoingBacklog:
    """Counts the bytes that were sent to one peer since its channel was full."""

    __slots__ = ("_allowed", "_waiting")

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self._waiting = 0

    def add(self, size: int, *, drained: bool) -> None:
        """Count a message that is to be sent; `drained`: the channel takes more as it is.

        `LimitError` when more than `Limits.extension_backlog` bytes wait: it must not be sent then.
        """
        if drained:
            self._waiting = 0
        elif self._waiting > self._allowed:
            raise LimitError(
                f"more than {self._allowed} bytes of extension messages wait for this peer, which "
                "does not read them",
                limit="extension_backlog",
                allowed=self._allowed,
            )
        self._waiting += size
