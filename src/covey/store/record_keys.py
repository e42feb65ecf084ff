"""The keys of a store's records (`storage.md` section 2); their values are in `records`.

A log has one number in its store, 32 bits, and the keys of its records start with it. Numbers are
big endian: neighbours lie side by side, and a part of a log is one range.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final

from covey.errors import StoreError, UsageError
from covey.keys import KEY_SIZE
from covey.store.derivation import NAMESPACE_SIZE, name_bytes
from covey.store.storage import KeyRange, Kind

_SHORT_NAME = 255  # longer names stand in keys by their hash: a key has 512 bytes
_IN_FULL, _HASHED = b"\x00", b"\x01"
_END = 1 << 64

_pack_core = struct.Struct(">BI").pack
_pack_item = struct.Struct(">BIQ").pack
_unpack_item = struct.Struct(">BIQ").unpack

STORE_HEAD: Final = bytes((Kind.STORE, 0))
"""The key of the one `StoreHead`."""
STORE_TRIAL: Final = bytes((Kind.STORE, 1))
"""The key of what is written, and deleted at once, to see whether a store that failed works."""
CORES: Final[KeyRange] = (bytes((Kind.CORE,)), bytes((Kind.CORE + 1,)))
"""The range of all logs by their discovery keys."""
ALIASES: Final[KeyRange] = (bytes((Kind.ALIAS,)), bytes((Kind.ALIAS + 1,)))
"""The range of all names."""


def core_by_discovery_key(discovery_key: bytes) -> bytes:
    """The key of a `CoreRecord`."""
    _check_size(discovery_key, KEY_SIZE, "a discovery key")
    return bytes((Kind.CORE,)) + discovery_key


def alias_key(namespace: bytes, name: str) -> bytes:
    """The key of the discovery key that goes by `name` in `namespace`."""
    _check_size(namespace, NAMESPACE_SIZE, "a namespace")
    return bytes((Kind.ALIAS,)) + namespace + _name_part(name)


def alias_range(namespace: bytes) -> KeyRange:
    """All names of one namespace."""
    _check_size(namespace, NAMESPACE_SIZE, "a namespace")
    return _under(bytes((Kind.ALIAS,)) + namespace)


def auth_key(core: int) -> bytes:
    """The key of a log's `Auth`."""
    return _core_key(Kind.AUTH, core)


def head_key(core: int) -> bytes:
    """The key of a log's `Head`."""
    return _core_key(Kind.HEAD, core)


def hints_key(core: int) -> bytes:
    """The key of a log's `Hints`."""
    return _core_key(Kind.HINTS, core)


def block_key(core: int, index: int) -> bytes:
    """The key of a block's bytes."""
    return _item_key(Kind.BLOCK, core, index)


def node_key(core: int, index: int) -> bytes:
    """The key of a node of the tree, by its flat index; see `node_value`."""
    return _item_key(Kind.NODE, core, index)


def bits_key(core: int, page: int) -> bytes:
    """The key of the availability of blocks 4,096 * `page` and on; see `check_bits`."""
    return _item_key(Kind.BITS, core, page)


def user_data_key(core: int, name: str) -> bytes:
    """The key of what a user keeps with a log under `name`."""
    return _core_key(Kind.USER_DATA, core) + _name_part(name)


def block_range(core: int, start: int = 0, end: int | None = None) -> KeyRange:
    """Blocks `start` and on, before `end` (None: to the last)."""
    return _item_range(Kind.BLOCK, core, start, end)


def node_range(core: int, start: int = 0, end: int | None = None) -> KeyRange:
    """Nodes by flat index, as `block_range`."""
    return _item_range(Kind.NODE, core, start, end)


def bits_range(core: int, start: int = 0, end: int | None = None) -> KeyRange:
    """Pages of availability, as `block_range`."""
    return _item_range(Kind.BITS, core, start, end)


def user_data_range(core: int) -> KeyRange:
    """All user data of a log."""
    return _under(_core_key(Kind.USER_DATA, core))


def core_ranges(core: int) -> list[KeyRange]:
    """Everything kept under a log's number: all of it but its `CoreRecord` and its name."""
    kinds = (Kind.AUTH, Kind.HEAD, Kind.HINTS, Kind.BLOCK, Kind.NODE, Kind.BITS, Kind.USER_DATA)
    return [_under(_core_key(kind, core)) for kind in kinds]


def index_of(key: bytes) -> int:
    """The number at the end of the key of a block, a node or a page."""
    try:
        return int(_unpack_item(key)[2])
    except struct.error as error:
        raise StoreError(f"{len(key)} bytes are not the key of a block, node or page") from error


def _core_key(kind: int, core: int) -> bytes:
    try:
        return _pack_core(kind, core)
    except struct.error as error:
        raise UsageError(f"a log's number in its store has 32 bits, not {core!r}") from error


def _item_key(kind: int, core: int, index: int) -> bytes:
    try:
        return _pack_item(kind, core, index)
    except struct.error as error:
        raise UsageError(f"no key for number {index!r} of log {core!r}: {error}") from error


def _item_range(kind: int, core: int, start: int, end: int | None) -> KeyRange:
    low = _item_key(kind, core, start)
    if end is None or end >= _END:
        return low, _under(_core_key(kind, core))[1]
    return low, _item_key(kind, core, end)


def _under(prefix: bytes) -> KeyRange:
    """All keys that start with `prefix`, which starts with a kind and so never is all 0xff."""
    bare = prefix.rstrip(b"\xff")
    return prefix, bare[:-1] + bytes((bare[-1] + 1,))


def _name_part(name: str) -> bytes:
    text = name_bytes(name)
    if len(text) <= _SHORT_NAME:
        return _IN_FULL + text
    return _HASHED + blake2b(text, digest_size=32).digest()


def _check_size(value: bytes, size: int, what: str) -> None:
    if not isinstance(value, bytes) or len(value) != size:
        raise UsageError(f"{what} is {size} bytes")  # never the value: it may be secret
