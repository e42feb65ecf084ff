"""Signatures of several signers in one value, and the nodes between trees of different lengths.

Source: hypercore 11.37.1, `lib/multisig.js` and `lib/verifier.js` (`generateUpgrade`);
`hypercore.md` section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from covey.errors import DecodeError
from covey.feed import flat_tree
from covey.feed.hashes import HASH_SIZE, Node, node_codec, parent_node
from covey.wire.encoding import Reader, encode_uint, fixed64, uint
from covey.wire.session import Buffer

SIGNATURE_SIZE = 64
MAX_SIGNATURE = 1 << 22
"""Bytes of the signature of one head: 1,024 signers with a patch each fit, whatever its nodes."""

_PROOF_SIZE = 1 + SIGNATURE_SIZE + 1
_NODE_SIZE = 2 + HASH_SIZE


class Proof(NamedTuple):
    """One signature in a frame: the number of its signer, and by how many blocks they are ahead."""

    signer: int
    signature: bytes
    patch: int = 0


class Frame(NamedTuple):
    """A multisig frame: signatures, and nodes that lead from the head to the longer trees."""

    proofs: list[Proof]
    nodes: list[Node]


def decode_frame(data: Buffer, *, oldest: bool) -> Frame:
    """The frame at the start of `data`; `oldest` for manifests of version 0.

    Bytes after it are ignored, as in the reference: the bytes of a signature are no identity.
    Raises `DecodeError`, also above `MAX_SIGNATURE` bytes.
    """
    if len(data) > MAX_SIGNATURE:
        raise DecodeError(f"a signature has at most {MAX_SIGNATURE} bytes, not {len(data)}")
    reader = Reader(data)
    read_proof = _read_oldest_proof if oldest else _read_proof
    proofs = [read_proof(reader) for _ in range(reader.take_count(_PROOF_SIZE))]
    nodes = [node_codec.decode_from(reader) for _ in range(reader.take_count(_NODE_SIZE))]
    return Frame(proofs, nodes)


def encode_frame(
    proofs: Sequence[Proof], nodes: Mapping[int, Node], *, length: int, oldest: bool
) -> bytes:
    """The frame of `proofs` for a head of `length` blocks.

    `nodes` has all nodes that the patches need, by index (`patch_indexes`); they are written in
    the order of their first use, each once.
    """
    order: dict[int, int] = {}
    out = bytearray(encode_uint(len(proofs)))
    for proof in proofs:
        needed = patch_indexes(length, proof.patch) if proof.patch else []
        places = [order.setdefault(index, len(order)) for index in needed]
        if oldest:
            _write_oldest_proof(out, proof, needed, places)
        else:
            out += encode_uint(proof.signer) + proof.signature + encode_uint(proof.patch)
    out += encode_uint(len(order))
    for index in order:
        node_codec.encode_into(out, nodes[index])
    return bytes(out)


def patch_indexes(length: int, ahead: int) -> list[int]:
    """The nodes that a tree of `length` blocks needs to become one that is `ahead` blocks longer.

    In the order in which an upgrade proof has them: to the right of the old tree, bottom up, then
    the new roots.
    """
    indexes: list[int] = []
    roots = flat_tree.full_roots(length)
    for root in flat_tree.full_roots(length + ahead):
        if flat_tree.right_span(root) < 2 * length:
            continue  # a root of both
        if flat_tree.left_span(root) >= 2 * length:
            indexes.append(root)
            continue
        node = roots[-1]
        while node != root:
            other = flat_tree.sibling(node)
            if other > node:
                indexes.append(other)
            node = flat_tree.parent(node)
    return indexes


def grow(
    roots: Sequence[Node], length: int, ahead: int, nodes: Mapping[int, Node]
) -> list[Node] | None:
    """The roots after `ahead` more blocks, out of `nodes`; None when one of them is missing.

    `roots` are those of `length` blocks; None also when they are not.
    """
    if [root.index for root in roots] != flat_tree.full_roots(length):
        return None
    waiting = list(roots)
    grown: list[Node] = []
    for index in flat_tree.full_roots(length + ahead):
        if len(grown) < len(roots) and roots[len(grown)].index == index:
            grown.append(waiting.pop(0))
            continue
        node = waiting.pop() if waiting else nodes.get(index)
        while node is not None and node.index != index:
            wanted = flat_tree.sibling(node.index)
            joined = wanted < node.index and waiting
            other = waiting.pop() if joined else nodes.get(wanted)
            node = None if other is None else parent_node(node, other)
        if node is None:
            return None
        grown.append(node)
    return grown


def by_index(nodes: Iterable[Node]) -> dict[int, Node]:
    """`nodes` by their index; of equal ones the last counts, as in the reference."""
    return {node.index: node for node in nodes}


def _read_proof(reader: Reader) -> Proof:
    signer = uint.decode_from(reader)
    signature = bytes(fixed64.decode_from(reader))
    return Proof(signer, signature, uint.decode_from(reader))


def _read_oldest_proof(reader: Reader) -> Proof:
    flags = uint.decode_from(reader)
    signer = uint.decode_from(reader)
    signature = bytes(fixed64.decode_from(reader))
    if not flags & 1:
        return Proof(signer, signature)
    uint.decode_from(reader)  # where the patch starts, which nobody looks at
    patch = uint.decode_from(reader)
    for _ in range(reader.take_count(1)):
        uint.decode_from(reader)  # which of the nodes are meant: they are found by their index
    return Proof(signer, signature, patch)


def _write_oldest_proof(
    out: bytearray, proof: Proof, needed: Sequence[int], places: Sequence[int]
) -> None:
    out += bytes([bool(proof.patch)]) + encode_uint(proof.signer) + proof.signature
    if not proof.patch:
        return
    # The reference writes the end of the last node as the start; both sides ignore the number.
    start = flat_tree.right_span(needed[-1]) // 2 + 1
    out += encode_uint(start) + encode_uint(proof.patch) + encode_uint(len(places))
    for place in places:
        out += encode_uint(place)
