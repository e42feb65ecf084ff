"""Who signed a head: signables, signatures and their verification (`hypercore.md` section 4).

Source: hypercore 11.37.1, `lib/verifier.js`, `lib/caps.js`, `lib/multisig.js`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from covey.errors import DecodeError, UsageError, VerifyError
from covey.feed.hashes import Node, tree_hash
from covey.feed.manifest import Manifest, Prologue, Signer, check_manifest, is_compat
from covey.feed.multisig import (
    SIGNATURE_SIZE,
    Proof,
    by_index,
    decode_frame,
    encode_frame,
    grow,
    patch_indexes,
)
from covey.keys import KEY_SIZE, KeyPair, namespace, verify

_TREE = namespace("hypercore", 0)
_pack_numbers = struct.Struct("<QQ").pack


def signable(context: bytes, tree: bytes, *, length: int, fork: int) -> bytes:
    """The bytes that are signed for a head.

    `tree` is its tree hash. `context` is the key of the log, with a manifest of version 0 the
    namespace of the signer, for a compat log nothing.
    """
    return _TREE + context + tree + _pack_numbers(length, fork)


def signable_length(lengths: Iterable[int], quorum: int) -> int:
    """The longest head that `quorum` of the signers, whose trees have `lengths`, can sign; or 0."""
    ordered = sorted(lengths, reverse=True)
    needed = max(quorum, 1)
    return ordered[needed - 1] if needed <= len(ordered) else 0


class Part(NamedTuple):
    """The signature of one signer, by number in the manifest, over a tree of `length` blocks."""

    signer: int
    signature: bytes
    length: int


class Authority:
    """Who may sign one log: what its key and its manifest say."""

    __slots__ = ("_contexts", "compat", "key", "manifest", "prologue", "signers", "static")

    def __init__(self, key: bytes, manifest: Manifest | None = None) -> None:
        """`VerifyError` when `manifest` is that of another log, `UsageError` for no key.

        Without a manifest the log is taken for a compat one: the key is then its signer's.
        """
        if len(key) != KEY_SIZE:
            raise UsageError(f"the key of a log has {KEY_SIZE} bytes, not {len(key)}")
        if manifest is not None:
            check_manifest(manifest, key)
        self.key = key
        self.manifest = manifest
        self.compat = is_compat(manifest, key)
        """Whether the key of the log is the public key of its only signer."""
        self.signers = manifest.signers if manifest is not None else (Signer(key),)
        self.prologue: Prologue | None = None
        """What heads must begin with; upgrades must not stop inside it."""
        if manifest is not None and not self.compat:
            self.prologue = manifest.prologue
        self.static = self.prologue is not None and not self.signers
        """Whether nobody can sign: the prologue is all of the log."""
        self._contexts = self._make_contexts()

    @property
    def quorum(self) -> int:
        """Signatures that a head needs; 0 means that none is ever enough."""
        return 1 if self.compat or self.manifest is None else self.manifest.required

    @property
    def allow_patch(self) -> bool:
        """Whether signers may have signed longer trees than the head."""
        return not self.compat and self.manifest is not None and self.manifest.allow_patch

    @property
    def oldest(self) -> bool:
        """Whether signatures are those of manifest version 0, which compat logs have too."""
        return self.compat or self.manifest is None or self.manifest.version == 0

    @property
    def bare(self) -> bool:
        """Whether a signature is just 64 bytes, without a frame."""
        return self.oldest and len(self.signers) == 1 and not self.allow_patch

    def verify(
        self, *, roots: Sequence[Node], length: int, fork: int, signature: bytes | None
    ) -> None:
        """`VerifyError` unless the head with these roots is signed, or is the prologue.

        A bad, cut or missing signature is a `VerifyError` too, and nothing else is raised.
        """
        tree = tree_hash(roots)
        if not self.oldest and self.prologue is not None and length <= self.prologue.length:
            if length != self.prologue.length or tree != self.prologue.hash:
                raise VerifyError(
                    f"a head of {length} blocks is not the prologue of {self.prologue.length}"
                )
            return
        if not signature:
            raise VerifyError(f"the head of {length} blocks is not signed")
        if self.bare:
            if not self._holds(0, signature, tree, length, fork):
                raise VerifyError(f"the signature of the head of {length} blocks is wrong")
            return
        self._verify_frame(signature, roots, tree, length, fork)

    def sign(self, key_pair: KeyPair, *, roots: Sequence[Node], length: int, fork: int) -> bytes:
        """The complete signature of a head by the one signer it takes.

        `UsageError` when the pair is no signer's or more signatures are needed (`sign_part`).
        """
        part = self.sign_part(key_pair, roots=roots, length=length, fork=fork)
        return self.assemble([part], length=length)

    def sign_part(
        self, key_pair: KeyPair, *, roots: Sequence[Node], length: int, fork: int
    ) -> Part:
        """One signer's share in a signature, for `assemble`; `UsageError` when it is no signer."""
        for number, signer in enumerate(self.signers):
            if signer.public_key == key_pair.public_key:
                message = self._message(number, tree_hash(roots), length, fork)
                return Part(number, key_pair.sign(message), length)
        raise UsageError(f"{key_pair.public_key.hex()} may not sign the log {self.key.hex()}")

    def assemble(
        self,
        parts: Iterable[Part],
        *,
        length: int,
        get_node: Callable[[int], Node | None] | None = None,
    ) -> bytes:
        """The signature of a head of `length` blocks out of the shares of enough signers.

        Where the manifest allows patches, shares over longer trees serve too (see
        `signable_length`); `get_node` then gives nodes of the longest of those trees by index.
        `UsageError` when the shares are not enough or do not fit.
        """
        proofs: list[Proof] = []
        for part in {part.signer: part for part in parts}.values():
            ahead = part.length - length
            if ahead < 0 or (ahead and not self.allow_patch):
                raise UsageError(
                    f"signer {part.signer} signed {part.length} blocks, the head has {length}"
                )
            proofs.append(Proof(part.signer, part.signature, ahead))
        if not 0 < self.quorum <= len(proofs):
            raise UsageError(f"{len(proofs)} of {self.quorum} signatures are there")
        if self.bare:
            return proofs[0].signature
        nodes = _collect(proofs, length, get_node)
        return encode_frame(proofs, nodes, length=length, oldest=self.oldest)

    def _make_contexts(self) -> Sequence[bytes]:
        if self.compat:
            return (b"",)
        if self.oldest:
            return tuple([signer.namespace for signer in self.signers])
        return (self.key,) * len(self.signers)

    def _message(self, signer: int, tree: bytes, length: int, fork: int) -> bytes:
        return signable(self._contexts[signer], tree, length=length, fork=fork)

    def _holds(self, signer: int, signature: bytes, tree: bytes, length: int, fork: int) -> bool:
        if len(signature) != SIGNATURE_SIZE:
            return False
        message = self._message(signer, tree, length, fork)
        return verify(message, bytes(signature), self.signers[signer].public_key)

    def _verify_frame(
        self, signature: bytes, roots: Sequence[Node], tree: bytes, length: int, fork: int
    ) -> None:
        """Count signatures: the first `quorum` of the frame must all hold, the rest is ignored."""
        try:
            frame = decode_frame(signature, oldest=self.oldest)
        except DecodeError as error:
            raise VerifyError(f"the signature of the head of {length} blocks is cut") from error
        if not 0 < self.quorum <= len(frame.proofs):
            raise VerifyError(f"{len(frame.proofs)} of {self.quorum} signatures are there")
        proofs = frame.proofs[: self.quorum]
        numbers = {proof.signer for proof in proofs}
        if len(numbers) < self.quorum or max(numbers) >= len(self.signers):
            raise VerifyError("a signer signed twice, or is none of the manifest's")
        patch = by_index(frame.nodes) if self.allow_patch else {}
        for proof in proofs:
            signed, signed_length = tree, length
            if proof.patch and self.allow_patch:
                grown = grow(roots, length, proof.patch, patch)
                if grown is None:
                    raise VerifyError(f"the patch of signer {proof.signer} lacks a node")
                signed, signed_length = tree_hash(grown), length + proof.patch
            if not self._holds(proof.signer, proof.signature, signed, signed_length, fork):
                raise VerifyError(f"the signature of signer {proof.signer} is wrong")


def _collect(
    proofs: Iterable[Proof], length: int, get_node: Callable[[int], Node | None] | None
) -> Mapping[int, Node]:
    """The nodes that the patches of `proofs` need; `UsageError` when one is missing."""
    nodes: dict[int, Node] = {}
    for proof in proofs:
        for index in patch_indexes(length, proof.patch) if proof.patch else ():
            node = get_node(index) if get_node is not None else None
            if node is None:
                raise UsageError(f"signer {proof.signer} is ahead, but node {index} is not there")
            nodes[index] = node
    return nodes
