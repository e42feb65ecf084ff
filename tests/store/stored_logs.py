"""Logs in a storage, and the look at everything that must hold of one after a crash."""

from __future__ import annotations

from covey.feed import flat_tree
from covey.feed.hashes import leaf_node, tree_hash
from covey.feed.log import Log
from covey.feed.manifest import Manifest, default_manifest
from covey.feed.signatures import Authority
from covey.feed.tree import cut_nodes
from covey.keys import KeyPair, discovery_key
from covey.store.log_records import StoredRecords, open_log
from covey.store.records import (
    Auth,
    auth_key,
    bits_range,
    block_range,
    index_of,
    node_range,
    read_node,
)
from covey.store.storage import Storage

PAIR = KeyPair.from_seed(b"\x11" * 32)
MANIFEST = default_manifest(PAIR.public_key)
CORE = 7


def make(storage: Storage, *, own: bool, core: int = CORE, manifest: Manifest | None = None) -> Log:
    """A new log in a storage: our `own`, or one of which only the key is known."""
    known = manifest or MANIFEST
    auth = Auth(
        known.key,
        discovery_key(known.key),
        known if own else None,
        PAIR.seed if own else None,
    )
    storage.write_batch([(auth_key(core), auth.encode())])
    return open_log(storage, core, clock=lambda: 1_700_000_000_000)


def assert_intact(storage: Storage, core: int = CORE) -> Log:
    """Open the log and check everything that `storage.md` section 4 says, from the records."""
    records = StoredRecords(storage, core)
    head = records.head()
    length = 0 if head is None else head.length
    nodes = {index_of(key): value for key, value in storage.range(*node_range(core))}
    blocks = {index_of(key): value for key, value in storage.range(*block_range(core))}
    if head is not None:
        roots = [read_node(index, nodes[index]) for index in flat_tree.full_roots(length)]
        assert tree_hash(roots) == head.tree_hash
        assert sum(root.size for root in roots) == head.byte_length
        auth = records.auth
        Authority(auth.key, auth.manifest).verify(
            roots=roots, length=length, fork=head.fork, signature=head.signature
        )
    assert all(index < length for index in blocks)
    assert all(index < 2 * length for index in nodes)
    assert not set(cut_nodes(length)) & set(nodes)
    held = set()
    for key, page in storage.range(*bits_range(core)):
        first = index_of(key) * 4096
        bits = int.from_bytes(page, "little")
        held |= {first + bit for bit in range(bits.bit_length()) if bits >> bit & 1}
    assert held == set(blocks)
    for index, data in blocks.items():
        assert leaf_node(index, data) == read_node(2 * index, nodes[2 * index])
    log = open_log(storage, core)
    assert log.length == length
    list(log.verify_all())
    contiguous = next(index for index in range(length + 1) if index not in held)
    assert log.contiguous_length == records.hints().contiguous_length == contiguous
    return log


def contents(log: Log) -> list[bytes | None]:
    """Every block, None for those that are not held."""
    return [log.block(index) for index in range(log.length)]
