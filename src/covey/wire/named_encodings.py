"""How applications name the encoding of their messages: `binary`, `utf-8`, `json`, or a codec."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

from covey.errors import CoveyError, DecodeError, EncodeError, UsageError
from covey.wire.binary import checked_bytes
from covey.wire.codec import Codec, decode, encode
from covey.wire.session import Buffer

ENCODINGS: Final = ("binary", "utf-8", "json")
"""The encodings that have a name."""
Encoding: TypeAlias = str | Codec[Any]


class Conversion(NamedTuple):
    """Both ways of an encoding: `encode` raises `EncodeError`, `decode` `DecodeError`."""

    encode: Callable[[Any], bytes]
    decode: Callable[[Buffer], Any]


def conversion(encoding: Encoding) -> Conversion:
    """The two functions of `encoding`; `UsageError` for a name that is none of `ENCODINGS`.

    Text that is no UTF-8 is a `DecodeError`. A codec of the application may raise what it likes.
    """
    if isinstance(encoding, Codec):
        return _of_codec(encoding)
    found = _NAMED.get(encoding) if isinstance(encoding, str) else None
    if found is None:
        raise UsageError(
            f"an encoding is one of {', '.join(ENCODINGS)} or a codec, not {encoding!r}"
        )
    return found


def _of_codec(codec: Codec[Any]) -> Conversion:
    def decode_value(payload: Buffer) -> Any:
        try:
            return decode(codec, payload)
        except CoveyError:
            raise
        except Exception as error:
            raise DecodeError(f"a message does not decode: {error}") from error

    return Conversion(lambda value: encode(codec, value), decode_value)


def _bytes_of(value: Any) -> bytes:
    return bytes(checked_bytes(value))


def _encode_text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise EncodeError(f"text is wanted, not {type(value).__name__}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(f"this is not Unicode text: {error.reason}") from error


def _decode_text(payload: Buffer) -> str:
    try:
        return str(payload, "utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError(f"this is not UTF-8 text: {error.reason}") from error


def _encode_json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise EncodeError(f"this cannot be written as JSON: {error}") from error


def _decode_json(payload: Buffer) -> Any:
    try:
        return json.loads(bytes(payload))
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"this is not JSON: {error}") from error


_NAMED: Final = {
    "binary": Conversion(_bytes_of, bytes),
    "utf-8": Conversion(_encode_text, _decode_text),
    "json": Conversion(_encode_json, _decode_json),
}
