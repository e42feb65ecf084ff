"""Names and the hashes they are announced under: checked here for every layer that takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal, TypeAlias

from covey.errors import UsageError
from covey.wire.dns_discovery import MAX_TOPIC

Name: TypeAlias = bytes | str
Hash: TypeAlias = Callable[[bytes], bytes]


def name_bytes(name: Name) -> bytes:
    """The name of a topic as bytes; text is UTF-8.

    Raises `TypeError` for what is neither `str` nor `bytes`, `UsageError` for an empty name.
    """
    raw = _encoded(name)
    if not raw:
        raise UsageError("the name of a topic cannot be empty")
    return raw


def topic_hash(name: Name, hash: Hash | Literal[False] | None = None) -> bytes:  # noqa: A002
    """What a name is announced under: its SHA-1 by default, `hash(name)` or, with False, itself.

    Cut to 20 bytes; a shorter result stays short. Raises `UsageError` when it is empty and
    `TypeError` when the name, or what `hash` returns, is of another type.
    """
    raw = _encoded(name)
    if hash is None:
        # Not for safety: whoever can guess a name finds its peers, whatever the hash.
        return hashlib.sha1(raw, usedforsecurity=False).digest()
    made = raw if hash is False else hash(raw)
    if not isinstance(made, bytes | bytearray | memoryview):
        raise TypeError(f"the hash of a name is bytes, not {type(made).__name__}")
    if not (made := bytes(made)[:MAX_TOPIC]):
        raise UsageError("the hash of a name cannot be empty")
    return made


def _encoded(name: Name) -> bytes:
    if isinstance(name, str):
        return name.encode()
    if isinstance(name, bytes):
        return name
    raise TypeError(f"the name of a topic is str or bytes, not {type(name).__name__}")
