"""Nodes of a log's Merkle tree and their hashes (`hypercore.md` section 2; hypercore-crypto 3.7).

Every hash is BLAKE2b with 32 bytes of output. Its first input byte tells leaves, parents and whole
trees apart, so that no block can be passed off as a piece of the tree.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from covey.errors import DecodeError, EncodeError
from covey.wire.encoding import Codec, Reader, encode_uint, read_uint
from covey.wire.session import Buffer

HASH_SIZE = 32

_LEAF_TYPE = 0
_PARENT_TYPE = 1
_TREE_TYPE = b"\x02"
# Each starts with the type byte: one call makes the whole head of the input.
_pack_leaf = struct.Struct("<BQ").pack
_pack_parent = struct.Struct("<BQ32s32s").pack
_pack_root = struct.Struct("<32sQQ").pack


class Node(NamedTuple):
    """A node of the tree: `index` in the flat tree, `size` in bytes of all blocks below, `hash`."""

    index: int  # type: ignore[assignment] # the name of the wire, not what tuples call index
    size: int
    hash: bytes


def leaf_node(block: int, data: Buffer) -> Node:
    """The leaf of block number `block`, whose stored bytes are `data`."""
    size = len(data)
    state = blake2b(_pack_leaf(_LEAF_TYPE, size), digest_size=32)
    state.update(data)
    return Node(2 * block, size, state.digest())


def parent_node(first: Node, second: Node) -> Node:
    """The parent of two siblings, in whichever order they are given.

    That they are siblings is not checked: the index is the middle between theirs.
    """
    if second[0] < first[0]:
        first, second = second, first
    left, left_size, left_hash = first
    right, right_size, right_hash = second
    size = left_size + right_size
    joined = _pack_parent(_PARENT_TYPE, size, left_hash, right_hash)
    return Node((left + right) >> 1, size, blake2b(joined, digest_size=32).digest())


def tree_hash(roots: Iterable[Node]) -> bytes:
    """The 32 bytes that stand for the whole log: what is signed. `roots` go left to right."""
    state = blake2b(_TREE_TYPE, digest_size=32)
    for index, size, root_hash in roots:
        state.update(_pack_root(root_hash, index, size))
    return state.digest()


EMPTY_TREE_HASH = tree_hash(())
"""The tree hash of a log without blocks."""


class NodeCodec(Codec[Node]):
    """A node on the wire: `uint` index, `uint` size, 32 bytes of hash."""

    __slots__ = ()
    minimum = 2 + HASH_SIZE

    def encode_into(self, out: bytearray, value: Node) -> None:
        """Append the node; `EncodeError` when a part of it does not fit."""
        index, size, node_hash = value
        if len(node_hash) != HASH_SIZE:
            raise EncodeError(f"a hash is {HASH_SIZE} bytes, not {len(node_hash)}")
        out += encode_uint(index)
        out += encode_uint(size)
        out += node_hash

    def decode_from(self, reader: Reader) -> Node:
        """Take one node; `DecodeError` when it is cut short or a number is 2^53 or more."""
        buffer = reader.buffer
        end = reader.end
        index, start = read_uint(buffer, reader.start, end)
        size, start = read_uint(buffer, start, end)
        stop = start + HASH_SIZE
        if stop > end:
            raise DecodeError(f"out of bounds: a hash is {HASH_SIZE} bytes, {end - start} are left")
        reader.start = stop
        return Node(index, size, bytes(buffer[start:stop]))


node_codec = NodeCodec()
