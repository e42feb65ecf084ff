"""One message type of a channel: encodes and sends, decodes and calls the handler.

Everything here runs once per message, so what can be decided once is decided when the type is
added: raw bytes, `buffer` and `string` have paths of their own, other codecs the general one.
"""

# `id` and `type` are the names that protomux uses.
# ruff: noqa: A002

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

from covey.errors import CoveyError, DecodeError, EncodeError
from covey.wire.encoding import Codec, Reader, encode_uint, raw, string
from covey.wire.encoding import buffer as buffer_codec
from covey.wire.protomux_channel import ChannelCore
from covey.wire.protomux_frames import Outbox

T = TypeVar("T")

LARGE = 1 << 16
"""Bytes from which on a message might not fit the frame that is being filled."""

Handler = Callable[[Any], Awaitable[Any] | Any]
"""Gets the decoded value. What it returns is awaited when that is possible."""


class MessageChannel(Protocol):
    """What a message type needs of its channel."""

    core: ChannelCore
    outbox: Outbox

    def start_entries(self) -> bool:
        """Make the outbox ready for entries of this channel. False: closed."""

    def outbox_full(self) -> None:
        """The outbox reached its limit."""


class Message(Generic[T]):
    """One message type. `on_message` may be replaced at any time; None drops what arrives.

    `auto_batch`: replies that an asynchronous handler sends may wait for the other handlers of the
    same received batch (at most `Limits.auto_cork`), to leave together.
    """

    __slots__ = (
        "_channel",
        "_encode_into",
        "_heads",
        "_outbox",
        "auto_batch",
        "codec",
        "decode",
        "on_message",
        "type",
    )

    def __init__(
        self,
        channel: MessageChannel,
        type: int,
        codec: Codec[T],
        on_message: Handler | None,
        *,
        auto_batch: bool,
    ) -> None:
        self._channel = channel
        self._outbox = channel.outbox
        self._encode_into = codec.encode_into
        self._heads = _heads(encode_uint(type), prefixed=codec is not raw)
        self.type = type
        self.codec = codec
        self.decode = decoder_of(codec)
        self.on_message = on_message
        self.auto_batch = auto_batch

    def send(self, value: T) -> bool:
        """Send `value`; it leaves with all that this turn of the event loop sends.

        False: the channel is closed (nothing is sent), or so much waits for the socket that the
        caller should `await channel.drain()`. `UsageError` before `open`, `EncodeError` when the
        value does not fit the codec.
        """
        payload = bytearray()
        self._encode_into(payload, value)
        outbox = self._outbox
        if len(payload) > LARGE:
            outbox.make_room(len(payload))
        if outbox.channel != self._channel.core.wire_id and not self._channel.start_entries():
            return False
        buffer = outbox.buffer
        kind = encode_uint(self.type)
        buffer += encode_uint(len(kind) + len(payload))
        buffer += kind
        buffer += payload
        if len(buffer) >= outbox.limit:
            self._channel.outbox_full()
        return outbox.accepting


class BytesMessage(Message[Any]):
    """A message type of `raw` or `buffer`."""

    __slots__ = ()

    def send(self, value: Any) -> bool:
        """As `Message.send`; bytes are copied before it returns."""
        if type(value) is not bytes:
            value = _as_bytes(value)
        outbox = self._outbox
        if len(value) > LARGE:
            outbox.make_room(len(value))
        if outbox.channel != self._channel.core.wire_id and not self._channel.start_entries():
            return False
        buffer = outbox.buffer
        try:
            buffer += self._heads[len(value)]
        except IndexError:
            buffer += _long_head(self, len(value))
        buffer += value
        if len(buffer) >= outbox.limit:
            self._channel.outbox_full()
        return outbox.accepting


class TextMessage(BytesMessage):
    """A message type of `string`."""

    __slots__ = ()

    def send(self, value: Any) -> bool:
        """As `Message.send`."""
        return BytesMessage.send(self, string.text_to_bytes(value))


def new_message(
    channel: MessageChannel,
    type: int,
    codec: Codec[T],
    on_message: Handler | None,
    *,
    auto_batch: bool,
) -> Message[T]:
    """The message type in the form that is fastest for `codec`."""
    kind: Any = Message
    if codec is raw or codec is buffer_codec:
        kind = BytesMessage
    elif codec is string:
        kind = TextMessage
    message: Message[T] = kind(channel, type, codec, on_message, auto_batch=auto_batch)
    return message


_tables: dict[tuple[bytes, bool], tuple[bytes, ...]] = {}


def _heads(kind: bytes, *, prefixed: bool) -> tuple[bytes, ...]:
    """What stands before a short payload, by its length: entry length, type, payload length."""
    table = _tables.get((kind, prefixed))
    if table is None:
        table = tuple(_head(kind, size, prefixed=prefixed) for size in range(240))
        if len(kind) == 1:  # types above 252 are too rare to keep their tables
            _tables[kind, prefixed] = table
    return table


def _head(kind: bytes, size: int, *, prefixed: bool) -> bytes:
    inner = kind + encode_uint(size) if prefixed else kind
    return encode_uint(len(inner) + size) + inner


def _long_head(message: Message[Any], size: int) -> bytes:
    return _head(encode_uint(message.type), size, prefixed=message.codec is not raw)


def _as_bytes(value: Any) -> bytes:
    try:
        return bytes(memoryview(value))
    except TypeError:
        raise EncodeError(f"bytes are wanted, not {type(value).__name__}") from None


def decoder_of(codec: Codec[T]) -> Callable[[bytes], T] | None:
    """How payloads of `codec` are decoded; None when the payload is the value.

    The decoder raises `DecodeError`, whatever a codec of the application does. What else a codec
    of `covey.wire` raises is a bug on this side, for which the remote is not to blame: it passes.
    """
    if codec is raw:
        return None
    decode_from = codec.decode_from
    ours = type(codec).__module__.startswith("covey.wire.")

    def decode(payload: bytes) -> T:
        try:
            return decode_from(Reader(payload))
        except CoveyError:
            raise
        except Exception as error:
            if ours:
                raise
            raise DecodeError(f"a message does not decode: {error}") from error

    def decode_buffer(payload: bytes) -> Any:
        if payload and payload[0] == len(payload) - 1 < 253:
            return payload[1:]
        return decode(payload)

    def decode_string(payload: bytes) -> Any:
        if payload and payload[0] == len(payload) - 1 < 253:
            return str(payload[1:], "utf-8", "replace")
        return decode(payload)

    if codec is buffer_codec:
        return decode_buffer
    if codec is string:
        return decode_string
    return decode
