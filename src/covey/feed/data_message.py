"""The message that carries blocks and their proofs, and its codec (`hypercore.md` section 7).

Source: hypercore 11.37.1, `lib/messages.js`. Written by hand over plain buffers: one of these comes
per block. Values and hashes are copies, they keep no received frame alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from covey.errors import DecodeError, EncodeError
from covey.feed.hashes import HASH_SIZE, Node
from covey.feed.manifest import Manifest, manifest_codec
from covey.wire.codec import Codec, Reader, encode_uint, out_of_bounds, read_uint
from covey.wire.session import Buffer

MAX_BLOCK = 15 << 20
"""Bytes of one block; with its proof it must fit one frame of 16 MiB - 1 (section 10.4)."""
MAX_NODES = 1024
"""Nodes of one list. A log of 2^53 blocks has at most 53 roots and as many levels, so that no list
needs more than some 100; each takes five times its bytes in memory."""

_BLOCK, _HASH, _SEEK, _UPGRADE, _MANIFEST = 1, 2, 4, 8, 16
_NODE_SIZE = 2 + HASH_SIZE


class BlockData(NamedTuple):
    """Block `index` as stored, and the `nodes` that lead from its leaf to a known one."""

    index: int  # type: ignore[assignment] # the name of the wire, not what tuples call index
    value: bytes
    nodes: Sequence[Node]


class HashData(NamedTuple):
    """The proof of tree node `index`; the node itself is the first of `nodes`."""

    index: int  # type: ignore[assignment]
    nodes: Sequence[Node]


class SeekData(NamedTuple):
    """The proof of the node in which the byte offset `bytes` lies."""

    bytes: int
    nodes: Sequence[Node]


class UpgradeData(NamedTuple):
    """The way from the head of `start` blocks to that of `start + length`, and its signature.

    `additional_nodes` lead on to the length that `signature` is for.
    """

    start: int
    length: int
    nodes: Sequence[Node]
    additional_nodes: Sequence[Node]
    signature: bytes | None


class Data(NamedTuple):
    """The answer to request number `request` (0: unasked), about the log on `fork`."""

    request: int
    fork: int
    block: BlockData | None = None
    hash: HashData | None = None
    seek: SeekData | None = None
    upgrade: UpgradeData | None = None
    manifest: Manifest | None = None


class DataCodec(Codec[Data]):
    """`data`: flags, request, fork, and the parts the flags tell, in the order of the fields."""

    __slots__ = ()
    minimum = 3

    def encode_into(self, out: bytearray, value: Data) -> None:
        """Append; `EncodeError` when a number, a hash or the block does not fit."""
        request, fork, block, hashed, seek, upgrade, manifest = value
        out.append(
            (_BLOCK if block is not None else 0)
            | (_HASH if hashed is not None else 0)
            | (_SEEK if seek is not None else 0)
            | (_UPGRADE if upgrade is not None else 0)
            | (_MANIFEST if manifest is not None else 0)
        )
        out += encode_uint(request)
        out += encode_uint(fork)
        if block is not None:
            number, data, nodes = block
            if len(data) > MAX_BLOCK:
                raise EncodeError(f"a block is at most {MAX_BLOCK} bytes, not {len(data)}")
            out += encode_uint(number)
            out += encode_uint(len(data))
            out += data
            _write_nodes(out, nodes)
        if hashed is not None:
            out += encode_uint(hashed[0])
            _write_nodes(out, hashed[1])
        if seek is not None:
            out += encode_uint(seek[0])
            _write_nodes(out, seek[1])
        if upgrade is not None:
            _write_upgrade(out, upgrade)
        if manifest is not None:
            manifest_codec.encode_into(out, manifest)

    def decode_from(self, reader: Reader) -> Data:
        """Take one; `DecodeError` when it is short or a part exceeds its bound."""
        buffer = reader.buffer
        end = reader.end
        flags, start = read_uint(buffer, reader.start, end)
        request, start = read_uint(buffer, start, end)
        fork, start = read_uint(buffer, start, end)
        block = hashed = seek = upgrade = manifest = None
        if flags & _BLOCK:
            block, start = _read_block(buffer, start, end)
        if flags & _HASH:
            number, start = read_uint(buffer, start, end)
            nodes, start = _read_nodes(buffer, start, end)
            hashed = HashData(number, nodes)
        if flags & _SEEK:
            number, start = read_uint(buffer, start, end)
            nodes, start = _read_nodes(buffer, start, end)
            seek = SeekData(number, nodes)
        if flags & _UPGRADE:
            upgrade, start = _read_upgrade(buffer, start, end)
        reader.start = start
        if flags & _MANIFEST:
            manifest = manifest_codec.decode_from(reader)
        return Data(request, fork, block, hashed, seek, upgrade, manifest)


def _write_nodes(out: bytearray, nodes: Sequence[Node]) -> None:
    if len(nodes) > MAX_NODES:
        raise EncodeError(f"a proof has at most {MAX_NODES} nodes, not {len(nodes)}")
    out += encode_uint(len(nodes))
    for number, size, node_hash in nodes:
        if len(node_hash) != HASH_SIZE:
            raise EncodeError(f"a hash is {HASH_SIZE} bytes, not {len(node_hash)}")
        out += encode_uint(number)
        out += encode_uint(size)
        out += node_hash


def _read_nodes(buffer: Buffer, start: int, end: int) -> tuple[list[Node], int]:
    count, start = read_uint(buffer, start, end)
    if count * _NODE_SIZE > end - start:
        raise out_of_bounds(count * _NODE_SIZE, end - start)
    if count > MAX_NODES:
        raise DecodeError(f"a proof has at most {MAX_NODES} nodes, not {count}")
    nodes = []
    for _ in range(count):
        number, start = read_uint(buffer, start, end)
        size, start = read_uint(buffer, start, end)
        stop = start + HASH_SIZE
        if stop > end:
            raise out_of_bounds(HASH_SIZE, end - start)
        nodes.append(Node(number, size, bytes(buffer[start:stop])))
        start = stop
    return nodes, start


def _read_block(buffer: Buffer, start: int, end: int) -> tuple[BlockData, int]:
    number, start = read_uint(buffer, start, end)
    size, start = read_uint(buffer, start, end)
    if size > MAX_BLOCK:
        raise DecodeError(f"a block is at most {MAX_BLOCK} bytes, not {size}")
    stop = start + size
    if stop > end:
        raise out_of_bounds(size, end - start)
    value = bytes(buffer[start:stop])
    nodes, stop = _read_nodes(buffer, stop, end)
    return BlockData(number, value, nodes), stop


def _write_upgrade(out: bytearray, upgrade: UpgradeData) -> None:
    start, length, nodes, additional_nodes, signature = upgrade
    out += encode_uint(start)
    out += encode_uint(length)
    _write_nodes(out, nodes)
    _write_nodes(out, additional_nodes)
    out += encode_uint(len(signature) if signature else 0)
    out += signature or b""


def _read_upgrade(buffer: Buffer, start: int, end: int) -> tuple[UpgradeData, int]:
    first, start = read_uint(buffer, start, end)
    length, start = read_uint(buffer, start, end)
    nodes, start = _read_nodes(buffer, start, end)
    additional_nodes, start = _read_nodes(buffer, start, end)
    size, start = read_uint(buffer, start, end)
    stop = start + size
    if stop > end:
        raise out_of_bounds(size, end - start)
    signature = bytes(buffer[start:stop]) or None
    return UpgradeData(first, length, nodes, additional_nodes, signature), stop


data_codec = DataCodec()
