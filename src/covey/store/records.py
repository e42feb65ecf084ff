"""What a store keeps: the keys of its records and their values (`storage.md` section 2).

Blocks and user data are kept as they are; nodes and pages of bits have a fixed size; the other
values carry a version and a checksum, so that bytes that came to harm are never taken for a record.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NoReturn, Self

from covey.errors import CoveyError, DecodeError, StoreError, UsageError
from covey.feed.hashes import Node
from covey.feed.manifest import Manifest, manifest_codec
from covey.keys import KeyPair
from covey.store.derivation import PRIMARY_KEY_SIZE, name_bytes
from covey.store.record_keys import (
    ALIASES,
    CORES,
    STORE_HEAD,
    alias_key,
    alias_range,
    auth_key,
    bits_key,
    bits_range,
    block_key,
    block_range,
    core_by_discovery_key,
    core_ranges,
    head_key,
    hints_key,
    index_of,
    node_key,
    node_range,
    user_data_key,
    user_data_range,
)
from covey.wire.encoding import (
    Codec,
    Reader,
    bool_,
    encode,
    fixed32,
    frame,
    read_uint,
    string,
    uint,
)
from covey.wire.structs import Field, Struct

BITS_PAGE_SIZE: Final = 512
"""Bytes of a page of availability bits: 4,096 blocks, so that one new block rewrites little."""

_VERSION = b"\x01"
_pack_node = struct.Struct("<Q32s").pack
_unpack_node = struct.Struct("<Q32s").unpack
_head_fields = struct.Struct("<QQQ32sQ?")
_fork_and_length = struct.Struct("<QQ").unpack_from


def node_value(node: Node) -> bytes:
    """The 40 bytes kept of a node: size and hash, its index is in its key."""
    try:
        _check_size(node[2], 32, "the hash of a node")
        return _pack_node(node[1], node[2])
    except struct.error as error:
        raise UsageError(f"node {node[0]} cannot be kept: {error}") from error


def read_node(index: int, value: bytes) -> Node:
    """The node `index` from its 40 bytes; `StoreError` for another number of them."""
    try:
        size, digest = _unpack_node(value)
    except struct.error as error:
        raise StoreError(f"node {index} has {len(value)} bytes in the store, not 40") from error
    return Node(index, size, digest)


def check_bits(page: int, value: bytes) -> bytes:
    """`value` itself; `StoreError` unless it has the size of a page."""
    if len(value) != BITS_PAGE_SIZE:
        raise StoreError(
            f"page {page} of bits has {len(value)} bytes in the store, not {BITS_PAGE_SIZE}"
        )
    return value


def core_number(value: bytes) -> int:
    """The number in a stored `CoreRecord`, without reading the rest of it."""
    body = _unseal(value, "the record of a log")
    try:
        return read_uint(body, 0, len(body))[0]
    except DecodeError as error:
        raise StoreError("the record of a log is damaged") from error


def fork_and_length(value: bytes) -> tuple[int, int]:
    """What a stored `Head` begins with, without reading the rest of it."""
    body = _unseal(value, "the head of a log")
    if len(body) < _head_fields.size:
        raise StoreError("the head of a log is damaged: it is too short")
    fork, length = _fork_and_length(body)
    return fork, length


def is_lacking(length: int, value: bytes | None) -> bool:
    """Whether a log of `length` blocks has a gap, by its stored `Hints`; bad ones say yes."""
    if length == 0 or value is None:
        return length > 0
    try:
        return Hints.decode(value).contiguous_length < length
    except StoreError:
        return True  # who opens the log is told


class _Secretive:
    """Holds secrets: these never leave by `pickle`."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is not pickled: its secrets stay in this process")


@dataclass(frozen=True, slots=True)
class Head:
    """The state of a log that its signature vouches for.

    `timestamp`: when it was stored, in milliseconds since 1970. `signature` is None for the empty
    log and where the manifest itself vouches.
    """

    fork: int
    length: int
    byte_length: int
    tree_hash: bytes
    signature: bytes | None = None
    timestamp: int = 0

    def encode(self) -> bytes:
        """The value to store; `UsageError` when a part does not fit."""
        _check_size(self.tree_hash, 32, "a tree hash")
        signed = self.signature is not None
        try:
            fixed = _head_fields.pack(
                self.fork, self.length, self.byte_length, self.tree_hash, self.timestamp, signed
            )
        except struct.error as error:
            raise UsageError(f"this head cannot be kept: {error}") from error
        return _seal(fixed + (self.signature or b""))

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """The head in a stored value; `StoreError` when it is damaged."""
        body = _unseal(value, "the head of a log")
        try:
            fork, length, size, digest, timestamp, signed = _head_fields.unpack_from(body)
        except struct.error as error:
            raise StoreError("the head of a log is damaged: it is too short") from error
        signature = body[_head_fields.size :]
        return cls(fork, length, size, digest, signature if signed else None, timestamp)


@dataclass(frozen=True, slots=True)
class Hints:
    """What is good to know of a log and may be out of date after a crash.

    `contiguous_length`: so many blocks from the first on are held. `remote_contiguous_length`: the
    most that a remote has claimed.
    """

    contiguous_length: int = 0
    remote_contiguous_length: int = 0

    def encode(self) -> bytes:
        """The value to store; `UsageError` when a part does not fit."""
        return _sealed(
            _HINTS, contiguous=self.contiguous_length, remote=self.remote_contiguous_length
        )

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """The hints in a stored value; `StoreError` when they are damaged."""
        fields = _unsealed(_HINTS, value, "the hints of a log")
        return cls(fields["contiguous"], fields["remote"])


@dataclass(frozen=True, slots=True)
class Auth(_Secretive):
    """Whose a log is, and whether we may write to it.

    `seed` is the secret of our key pair, None where we only read. `frozen`: two signed states that
    exclude each other were seen. `encryption_key`: the 32 secret bytes of encrypted blocks.
    """

    key: bytes
    discovery_key: bytes
    manifest: Manifest | None = None
    seed: bytes | None = field(default=None, repr=False)
    frozen: bool = False
    encryption_key: bytes | None = field(default=None, repr=False)

    @property
    def key_pair(self) -> KeyPair | None:
        """The key pair of `seed`; None where we only read."""
        return None if self.seed is None else KeyPair.from_seed(self.seed)

    def encode(self) -> bytes:
        """The value to store; `UsageError` when a part does not fit."""
        for secret, what in ((self.seed, "a seed"), (self.encryption_key, "an encryption key")):
            if secret is not None:
                _check_size(secret, 32, what)
        return _sealed(
            _AUTH,
            key=self.key,
            discovery_key=self.discovery_key,
            manifest=self.manifest,
            seed=self.seed,
            frozen=self.frozen,
            encryption_key=self.encryption_key,
        )

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """The record in a stored value; `StoreError` when it is damaged."""
        return cls(**_unsealed(_AUTH, value, "the keys of a log"))


class Alias(NamedTuple):
    """The name of a log in a store: a namespace of 32 bytes, and the name in it."""

    namespace: bytes
    name: str


@dataclass(frozen=True, slots=True)
class CoreRecord:
    """That a log is stored: its number here, and the name it was made under, if any."""

    core: int
    alias: Alias | None = None

    def encode(self) -> bytes:
        """The value to store; `UsageError` when a part does not fit."""
        head_key(self.core)  # refuses a number that no key can hold
        if self.alias is None:
            return _sealed(_CORE, core=self.core)
        namespace, name = self.alias
        name_bytes(name)
        # One field for both, so that an empty name is a name.
        return _sealed(_CORE, core=self.core, alias={"namespace": namespace, "name": name})

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """The record in a stored value; `StoreError` when it is damaged."""
        fields = _unsealed(_CORE, value, "the record of a log")
        alias = fields["alias"]
        return cls(fields["core"], None if alias is None else Alias(**alias))


@dataclass(frozen=True, slots=True)
class StoreHead(_Secretive):
    """The store itself: the number of the next new log, and the secret all own logs come from.

    `default_discovery_key`: the log that is meant where none is named.
    """

    cores: int
    primary_key: bytes = field(repr=False)
    default_discovery_key: bytes | None = None

    def encode(self) -> bytes:
        """The value to store; `UsageError` when a part does not fit."""
        _check_size(self.primary_key, PRIMARY_KEY_SIZE, "a primary key")
        return _sealed(
            _STORE,
            cores=self.cores,
            primary_key=self.primary_key,
            default=self.default_discovery_key,
        )

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """The record in a stored value; `StoreError` when it is damaged."""
        fields = _unsealed(_STORE, value, "the head of the store")
        return cls(fields["cores"], fields["primary_key"], fields["default"])


_framed_manifest: Codec[Manifest] = frame(manifest_codec)

_HINTS = Struct(Field("contiguous", uint, required=True), Field("remote", uint, required=True))
_AUTH = Struct(
    Field("key", fixed32, required=True),
    Field("discovery_key", fixed32, required=True),
    Field("manifest", _framed_manifest),
    Field("seed", fixed32),
    Field("frozen", bool_),
    Field("encryption_key", fixed32),
)
_ALIAS = Struct(Field("namespace", fixed32, required=True), Field("name", string, required=True))
_CORE = Struct(Field("core", uint, required=True), Field("alias", _ALIAS))
_STORE = Struct(
    Field("cores", uint, required=True),
    Field("primary_key", fixed32, required=True),
    Field("default", fixed32),
)


def _seal(body: bytes) -> bytes:
    """`body` with version and checksum around it."""
    versioned = _VERSION + body
    return versioned + zlib.crc32(versioned).to_bytes(4, "little")


def _unseal(value: bytes, what: str) -> bytes:
    """The body of a sealed value; `StoreError` when it came to harm or is of a later version."""
    if len(value) < 5 or zlib.crc32(value[:-4]) != int.from_bytes(value[-4:], "little"):
        raise StoreError(f"{what} is damaged: its checksum does not fit")
    if value[:1] != _VERSION:
        raise StoreError(f"{what} is of version {value[0]}, from a later covey")
    return value[1:-4]


def _sealed(layout: Struct, **fields: Any) -> bytes:
    try:
        return _seal(encode(layout, fields))
    except CoveyError as error:
        # It quotes no secret: those were looked at before, by `_check_size`.
        raise UsageError(f"a record cannot be kept: {error}") from error


def _unsealed(layout: Struct, value: bytes, what: str) -> dict[str, Any]:
    reader = Reader(_unseal(value, what))
    try:
        fields = layout.decode_from(reader)
    except DecodeError as error:
        raise StoreError(f"{what} is damaged") from error
    if reader.remaining:
        raise StoreError(f"{what} is damaged: {reader.remaining} bytes are left over")
    return fields


def _check_size(value: bytes, size: int, what: str) -> None:
    if not isinstance(value, bytes) or len(value) != size:
        raise UsageError(f"{what} is {size} bytes")  # never the value: it may be secret


__all__ = [
    "ALIASES",
    "BITS_PAGE_SIZE",
    "CORES",
    "STORE_HEAD",
    "Alias",
    "Auth",
    "CoreRecord",
    "Head",
    "Hints",
    "StoreHead",
    "alias_key",
    "alias_range",
    "auth_key",
    "bits_key",
    "bits_range",
    "block_key",
    "block_range",
    "check_bits",
    "core_by_discovery_key",
    "core_number",
    "core_ranges",
    "fork_and_length",
    "head_key",
    "hints_key",
    "index_of",
    "is_lacking",
    "node_key",
    "node_range",
    "node_value",
    "read_node",
    "user_data_key",
    "user_data_range",
]
