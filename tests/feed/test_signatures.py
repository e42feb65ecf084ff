"""Signatures of heads: every case of the vectors, many signers, patches, hostile frames."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.errors import UsageError, VerifyError
from covey.feed import flat_tree
from covey.feed.hashes import Node, leaf_node, parent_node, tree_hash
from covey.feed.manifest import (
    MAX_SIGNERS,
    Manifest,
    Prologue,
    Signer,
    default_manifest,
    manifest_codec,
)
from covey.feed.multisig import MAX_SIGNATURE, decode_frame
from covey.feed.signatures import Authority, Part, signable, signable_length
from covey.keys import KeyPair
from covey.wire.encoding import decode
from tests.vectors_path import load_vectors

VECTORS = load_vectors("signatures")
MERKLE = load_vectors("merkle")
MANY = load_vectors("multisig")
PAIRS = [KeyPair.from_seed(bytes([number]) * 32) for number in range(1, 5)]
SIGNERS = tuple(Signer(pair.public_key) for pair in PAIRS)


def name_of(case: dict[str, Any]) -> str:
    return str(case["description"])


def roots_of(case: dict[str, Any]) -> list[Node]:
    return [
        Node(root["index"], root["size"], bytes.fromhex(root["hash"])) for root in case["roots"]
    ]


def authority_of(case: dict[str, Any], pair: KeyPair) -> Authority:
    """The authority of a case with one signer: the manifest whose hash is its key."""
    key = bytes.fromhex(case["key"])
    if key == pair.public_key:
        return Authority(key)
    made = [default_manifest(pair.public_key, version=version) for version in range(4)]
    return Authority(key, next(manifest for manifest in made if manifest.key == key))


def holds(authority: Authority, **head: Any) -> bool:
    try:
        authority.verify(**head)
    except VerifyError:
        return False
    return True


class Tree:
    """A log of one-byte blocks, of which any shorter length is at hand."""

    def __init__(self, length: int) -> None:
        self.nodes = {2 * i: leaf_node(i, bytes([i])) for i in range(length)}
        for level in range(1, length.bit_length()):
            for offset in range(length >> level):
                left, right = flat_tree.children(flat_tree.index(level, offset)) or (0, 0)
                node = parent_node(self.nodes[left], self.nodes[right])
                self.nodes[node.index] = node

    def roots(self, length: int) -> list[Node]:
        return [self.nodes[index] for index in flat_tree.full_roots(length)]


TREE = Tree(40)


def head_of(length: int, fork: int = 0) -> dict[str, Any]:
    return {"roots": TREE.roots(length), "length": length, "fork": fork}


def two_of_three(**fields: Any) -> Authority:
    manifest = Manifest(signers=SIGNERS[:3], **fields)
    return Authority(manifest.key, manifest)


def parts_of(authority: Authority, lengths: dict[int, int], fork: int = 0) -> list[Part]:
    return [
        authority.sign_part(PAIRS[i], roots=TREE.roots(length), length=length, fork=fork)
        for i, length in lengths.items()
    ]


@pytest.mark.parametrize("case", VECTORS["single"], ids=name_of)
def test_a_head_of_one_signer_of_the_vectors(case: dict[str, Any]) -> None:
    pair = KeyPair.from_seed(bytes.fromhex(case["seed"]))
    authority = authority_of(case, pair)
    roots = roots_of(case)
    tree = tree_hash(roots)
    assert tree.hex() == case["treeHash"]
    context = b"" if authority.compat else bytes.fromhex(case["context"])
    message = signable(context, tree, length=case["length"], fork=case["fork"])
    assert message.hex() == case["signable"]
    head = {"roots": roots, "length": case["length"], "fork": case["fork"]}
    assert authority.sign(pair, **head).hex() == case["signature"]
    assert holds(authority, **head, signature=bytes.fromhex(case["signature"])) is case["valid"]


@pytest.mark.parametrize("case", VECTORS["multisig"]["cases"], ids=name_of)
def test_a_head_of_several_signers_of_the_vectors(case: dict[str, Any]) -> None:
    every = VECTORS["multisig"]
    pairs = [KeyPair.from_seed(bytes.fromhex(seed)) for seed in every["seeds"]]
    signers = tuple(Signer(pair.public_key) for pair in pairs)
    manifest = Manifest(quorum=every["quorum"], signers=signers)
    authority = Authority(bytes.fromhex(every["coreKey"]), manifest)
    head = {"roots": roots_of(every), "length": every["length"], "fork": every["fork"]}
    signature = bytes.fromhex(case["signature"])
    assert holds(authority, **head, signature=signature) is case["valid"]
    if case["valid"]:
        order = [proof.signer for proof in decode_frame(signature, oldest=False).proofs]
        parts = [authority.sign_part(pairs[number], **head) for number in order]
        assert authority.assemble(parts, length=every["length"]) == signature


@pytest.mark.parametrize("case", VECTORS["negative"]["cases"], ids=name_of)
def test_a_head_of_the_negative_vectors(case: dict[str, Any]) -> None:
    every = VECTORS["negative"]
    pair = KeyPair.from_seed(bytes.fromhex(every["seed"]))
    authority = authority_of(every, pair)
    head = {"roots": roots_of(every), "length": case["length"], "fork": case["fork"]}
    signature = bytes.fromhex(case["signature"])
    assert holds(authority, **head, signature=signature) is (case["valid"] is True)


@pytest.mark.parametrize("case", MERKLE["trees"], ids=name_of)
def test_a_head_of_the_tree_vectors(case: dict[str, Any]) -> None:
    pair = KeyPair.from_seed(bytes.fromhex(MERKLE["keyPairSeed"]))
    key = bytes.fromhex(MERKLE["coreKey"])
    authority = Authority(key, default_manifest(pair.public_key))
    roots = roots_of(case)
    numbers = {"length": case["length"], "fork": case["fork"]}
    assert signable(key, tree_hash(roots), **numbers).hex() == case["signable"]
    assert authority.sign(pair, roots=roots, **numbers).hex() == case["signature"]
    assert (
        authority.sign_part(pair, roots=roots, **numbers).signature.hex()
        == (case["signatureEd25519"])
    )
    authority.verify(roots=roots, **numbers, signature=bytes.fromhex(case["signature"]))


@pytest.mark.parametrize("number", range(len(MANY["cases"])))
def test_what_node_says_of_signers_ahead_of_the_head(number: int) -> None:
    case = MANY["cases"][number]
    manifest = decode(manifest_codec, bytes.fromhex(case["manifest"]))
    authority = Authority(bytes.fromhex(case["key"]), manifest)
    head = {"roots": roots_of(case), "length": case["length"], "fork": case["fork"]}
    signature = bytes.fromhex(case["signature"])
    assert holds(authority, **head, signature=signature) is (case["valid"] is True)


@pytest.mark.parametrize("number", range(len(MANY["cases"])))
def test_signers_ahead_of_the_head_are_assembled_as_node_does(number: int) -> None:
    case = MANY["cases"][number]
    pairs = [KeyPair.from_seed(bytes.fromhex(seed)) for seed in MANY["seeds"]]
    manifest = decode(manifest_codec, bytes.fromhex(case["manifest"]))
    authority = Authority(bytes.fromhex(case["key"]), manifest)
    tree = Tree(0)
    blocks = [bytes([i]) * (i % 5) for i in range(max(part["length"] for part in case["parts"]))]
    tree.nodes = {2 * i: leaf_node(i, block) for i, block in enumerate(blocks)}
    for index in sorted(range(2 * len(blocks)), key=flat_tree.depth):
        children = flat_tree.children(index)
        if children and children[1] in tree.nodes and children[0] in tree.nodes:
            tree.nodes[index] = parent_node(*(tree.nodes[child] for child in children))
    assert tree.roots(case["length"]) == roots_of(case)
    parts = [
        authority.sign_part(
            pairs[part["signer"]],
            roots=tree.roots(part["length"]),
            length=part["length"],
            fork=case["fork"],
        )
        for part in case["parts"]
    ]
    if case["valid"] is True:
        made = authority.assemble(parts, length=case["length"], get_node=tree.nodes.get)
        assert made.hex() == case["signature"]
    else:
        with pytest.raises(UsageError, match="the head has"):
            authority.assemble(parts, length=case["length"], get_node=tree.nodes.get)


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_each_bit_of_a_signature_but_the_patch_counts(version: int) -> None:
    manifest = default_manifest(PAIRS[0].public_key, version=version)
    authority = Authority(manifest.key, manifest)
    head = head_of(5, fork=2)
    signature = authority.sign(PAIRS[0], **head)
    looked_at = 8 * (len(signature) - 2 if version else 64)
    for bit in random.Random(1).sample(range(looked_at), 60):
        forged = bytearray(signature)
        forged[bit // 8] ^= 1 << bit % 8
        assert not holds(authority, **head, signature=bytes(forged))
    for size in range(len(signature)):
        assert not holds(authority, **head, signature=signature[:size])
    for other in ({"length": 6}, {"fork": 1}, {"roots": TREE.roots(4)}, {"signature": None}):
        assert not holds(authority, **{**head, "signature": signature, **other})


def test_the_head_of_one_log_is_not_that_of_another_with_the_same_signer() -> None:
    one, other = (default_manifest(PAIRS[0].public_key, version=version) for version in (1, 2))
    head = head_of(5)
    signature = Authority(one.key, one).sign(PAIRS[0], **head)
    assert not holds(Authority(other.key, other), **head, signature=signature)
    assert not holds(Authority(PAIRS[0].public_key), **head, signature=signature[2:66])


def test_a_compat_log_is_verified_with_and_without_its_manifest() -> None:
    key = PAIRS[0].public_key
    head = head_of(5)
    plain, told = Authority(key), Authority(key, default_manifest(key))
    assert plain.compat
    assert told.compat
    signature = plain.sign(PAIRS[0], **head)
    assert len(signature) == 64
    assert told.sign(PAIRS[0], **head) == signature
    told.verify(**head, signature=signature)


def test_the_manifest_of_another_log_makes_no_authority() -> None:
    with pytest.raises(VerifyError):
        Authority(bytes(32), default_manifest(PAIRS[0].public_key))
    with pytest.raises(UsageError):
        Authority(bytes(31))


def test_a_static_log_is_its_prologue_and_nothing_else() -> None:
    manifest = Manifest(prologue=Prologue(tree_hash(TREE.roots(7)), 7))
    authority = Authority(manifest.key, manifest)
    assert authority.static
    authority.verify(**head_of(7), signature=None)
    for length in (0, 6, 8):
        assert not holds(authority, **head_of(length), signature=b"\0\0")
    assert not holds(authority, roots=TREE.roots(5), length=7, fork=0, signature=None)
    with pytest.raises(UsageError):
        authority.sign(PAIRS[0], **head_of(8))


def test_a_prologue_needs_no_signature_and_what_follows_does() -> None:
    prologue = Prologue(tree_hash(TREE.roots(3)), 3)
    manifest = Manifest(signers=SIGNERS[:1], prologue=prologue)
    authority = Authority(manifest.key, manifest)
    assert (authority.static, authority.prologue) == (False, prologue)
    authority.verify(**head_of(3), signature=None)
    short = head_of(2)
    assert not holds(authority, **short, signature=authority.sign(PAIRS[0], **short))
    later = head_of(4)
    assert not holds(authority, **later, signature=None)
    authority.verify(**later, signature=authority.sign(PAIRS[0], **later))


def test_a_static_log_of_version_0_has_no_head_that_holds() -> None:
    manifest = Manifest(version=0, prologue=Prologue(tree_hash(()), 0))
    authority = Authority(manifest.key, manifest)
    assert not holds(authority, roots=[], length=0, fork=0, signature=None)
    assert not holds(authority, roots=[], length=0, fork=0, signature=b"\0\0")


def test_a_quorum_of_none_never_holds() -> None:
    manifest = Manifest(quorum=0, signers=SIGNERS[:2])
    authority = Authority(manifest.key, manifest)
    for signature in (None, b"", b"\0\0", bytes(64)):
        assert not holds(authority, **head_of(1), signature=signature)
    with pytest.raises(UsageError):
        authority.sign(PAIRS[0], **head_of(1))


@pytest.mark.parametrize("version", [0, 1])
def test_what_comes_after_the_quorum_is_not_looked_at(version: int) -> None:
    authority = two_of_three(version=version)
    head = head_of(9)
    parts = parts_of(authority, {0: 9, 1: 9, 2: 9})
    spoilt = parts[2]._replace(signature=bytes(64))
    assert holds(authority, **head, signature=authority.assemble([*parts[:2], spoilt], length=9))
    assert not holds(
        authority, **head, signature=authority.assemble([spoilt, *parts[:2]], length=9)
    )


@given(st.integers(0, 20), st.lists(st.integers(0, 20), min_size=3, max_size=3), st.integers(0, 1))
def test_signers_ahead_by_any_number_sign_a_head(head: int, ahead: list[int], version: int) -> None:
    authority = two_of_three(version=version, allow_patch=True)
    lengths = [head + blocks for blocks in ahead]
    parts = parts_of(authority, dict(enumerate(lengths)))
    signature = authority.assemble(parts, length=head, get_node=TREE.nodes.get)
    authority.verify(**head_of(head), signature=signature)
    if any(ahead[:2]):
        nodes = decode_frame(signature, oldest=version == 0).nodes
        changed = {**TREE.nodes, nodes[0].index: nodes[0]._replace(hash=bytes(32))}
        needed = authority.assemble(parts[:2], length=head, get_node=changed.get)
        assert not holds(authority, **head_of(head), signature=needed)


def test_a_patch_counts_only_where_the_manifest_allows_it() -> None:
    allowed, forbidden = two_of_three(allow_patch=True), two_of_three()
    parts = parts_of(allowed, {0: 12, 1: 9})
    signature = allowed.assemble(parts, length=9, get_node=TREE.nodes.get)
    assert not holds(forbidden, **head_of(9), signature=signature)
    with pytest.raises(UsageError, match="the head has 9"):
        forbidden.assemble(parts_of(forbidden, {0: 12, 1: 9}), length=9)


def test_a_patch_with_a_node_missing_or_numbers_beyond_reason_is_an_invalid_signature() -> None:
    authority = two_of_three(allow_patch=True)
    head = head_of(9)
    parts = parts_of(authority, {0: 12, 1: 9})
    signature = authority.assemble(parts, length=9, get_node=TREE.nodes.get)
    authority.verify(**head, signature=signature)
    proofs = signature[: 1 + 2 * 66]
    assert not holds(authority, **head, signature=proofs + b"\0")
    far = b"\xff" + ((1 << 53) - 1).to_bytes(8, "little")
    assert not holds(authority, **head, signature=proofs[:66] + far + signature[67:])
    assert not holds(authority, **{**head, "roots": TREE.roots(8)}, signature=signature)
    with pytest.raises(UsageError, match="is not there"):
        authority.assemble(parts, length=9)


def test_shares_that_are_too_few_or_too_short_are_not_assembled() -> None:
    authority = two_of_three(allow_patch=True)
    one, two = parts_of(authority, {0: 9, 1: 8})
    with pytest.raises(UsageError, match="1 of 2"):
        authority.assemble([one, one], length=9)
    with pytest.raises(UsageError, match="signed 8 blocks"):
        authority.assemble([one, two], length=9)
    with pytest.raises(UsageError, match="may not sign"):
        authority.sign_part(PAIRS[3], **head_of(9))
    with pytest.raises(UsageError, match="1 of 2"):
        authority.sign(PAIRS[0], **head_of(9))


@pytest.mark.parametrize(
    ("lengths", "quorum", "expected"),
    [([9, 12, 3], 2, 9), ([9, 12, 3], 1, 12), ([9, 12, 3], 3, 3), ([9], 2, 0), ([5, 4], 0, 5)],
)
def test_the_longest_head_that_enough_signers_have(
    lengths: list[int], quorum: int, expected: int
) -> None:
    assert signable_length(lengths, quorum) == expected


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(
    "count", [b"\xfe\xff\xff\xff\x3f", b"\xff" + b"\xff" * 6 + b"\0\0", b"\xf0"]
)
def test_a_count_beyond_the_bytes_is_an_invalid_signature(version: int, count: bytes) -> None:
    authority = two_of_three(version=version)
    head = head_of(9)
    good = authority.assemble(parts_of(authority, {0: 9, 1: 9}), length=9)
    for signature in (count + good[1:], good[:-1] + count):
        with pytest.raises(VerifyError, match="is cut"):
            authority.verify(**head, signature=signature)


def test_an_oversized_signature_is_invalid_before_it_is_read() -> None:
    authority = two_of_three()
    head = head_of(9)
    good = authority.assemble(parts_of(authority, {0: 9, 1: 9}), length=9)
    authority.verify(**head, signature=good.ljust(MAX_SIGNATURE, b"\0"))
    assert not holds(authority, **head, signature=good.ljust(MAX_SIGNATURE + 1, b"\0"))


@pytest.mark.parametrize("version", [0, 1])
def test_as_many_signers_as_there_may_be_fit_into_a_signature(version: int) -> None:
    manifest = Manifest(version=version, signers=SIGNERS[:1] * MAX_SIGNERS, allow_patch=True)
    authority = Authority(manifest.key, manifest)
    parts = [Part(i, bytes(64), (1 << 51) + (1 << 40) * i - 1) for i in range(MAX_SIGNERS)]
    signature = authority.assemble(
        parts, length=1, get_node=lambda index: Node(index, (1 << 53) - 1, bytes(32))
    )
    frame = decode_frame(signature, oldest=version == 0)
    assert [proof.signer for proof in frame.proofs] == list(range(MAX_SIGNERS))
    assert {node.index for node in frame.nodes} > {2, 5}
    assert not holds(authority, **head_of(1), signature=signature)


@given(st.binary(max_size=400), st.integers(0, 1), st.booleans())
def test_any_bytes_are_an_invalid_signature(data: bytes, version: int, allow_patch: bool) -> None:
    authority = two_of_three(version=version, allow_patch=allow_patch)
    head = head_of(9)
    good = authority.assemble(parts_of(authority, {0: 9, 1: 9}), length=9)
    for signature in (data, b"\2" + data, good[:68] + data):
        if signature[: len(good) - 1] != good[:-1]:
            assert not holds(authority, **head, signature=signature)
