"""Which key a name stands for, by a store's primary key (`corestore.md` section 2; corestore 7).

All of a store's own logs come from its primary key, 32 secret bytes, and their names.
"""

from __future__ import annotations

import hashlib
from typing import Final

from covey.errors import UsageError
from covey.feed.manifest import default_manifest
from covey.keys import KeyPair, namespace

PRIMARY_KEY_SIZE: Final = 32
NAMESPACE_SIZE: Final = 32

ROOT_NAMESPACE: Final = bytes(NAMESPACE_SIZE)
"""The namespace of a store itself."""

_SEED_DOMAIN: Final = namespace("corestore", 0)


def name_bytes(name: str) -> bytes:
    """The bytes that count of a name: its UTF-8, not normalised.

    Raises `UsageError` when it has none (half of a surrogate pair).
    """
    if not isinstance(name, str):
        raise UsageError(f"a name is a str, not {type(name).__name__}")
    try:
        return name.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the name {name!r} is not Unicode text: {error.reason}") from error


def namespace_of(parent: bytes, name: str) -> bytes:
    """The 32 bytes of the namespace `name` inside `parent`, to any depth; see `ROOT_NAMESPACE`."""
    _check(parent, NAMESPACE_SIZE, "a namespace")
    return hashlib.blake2b(parent + name_bytes(name), digest_size=32).digest()


def seed_of(primary_key: bytes, parent: bytes, name: str) -> bytes:
    """The 32 secret bytes of the key pair called `name` in the namespace `parent`."""
    _check(primary_key, PRIMARY_KEY_SIZE, "a primary key")
    _check(parent, NAMESPACE_SIZE, "a namespace")
    data = _SEED_DOMAIN + parent + name_bytes(name)
    return hashlib.blake2b(data, digest_size=32, key=primary_key).digest()


def key_pair_of(primary_key: bytes, parent: bytes, name: str) -> KeyPair:
    """The key pair called `name` in the namespace `parent`."""
    return KeyPair.from_seed(seed_of(primary_key, parent, name))


def core_key_of(public_key: bytes, *, version: int = 1) -> bytes:
    """The key of the log that `public_key` alone signs, by the default manifest of a version.

    Another version gives another key.
    """
    return default_manifest(public_key, version=version).key


def _check(value: bytes, size: int, what: str) -> None:
    if not isinstance(value, bytes) or len(value) != size:
        raise UsageError(f"{what} is {size} bytes")  # never the value: it may be secret
