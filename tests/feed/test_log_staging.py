"""What logs remember of their trees has one bound for all of them."""

from __future__ import annotations

from covey.feed.hashes import Node
from covey.feed.log import Log
from covey.feed.log_staging import NodeCache, NodeMemory
from covey.feed.manifest import default_manifest
from tests.feed.replication_links import PAIR, DictRecords


def node(index: int) -> Node:
    """Some node."""
    return Node(index, 1, bytes(32))


def test_the_caches_of_many_logs_share_one_bound() -> None:
    memory = NodeMemory(100)
    caches = [NodeCache(memory) for _ in range(50)]
    for _ in range(3):
        for number, cache in enumerate(caches):
            for index in range(60):
                cache.add((node(index),))
            assert sum(map(len, caches)) <= 200
            assert cache.get(59) == node(59), number


def test_a_log_that_is_quiet_is_forgotten_for_one_that_is_not() -> None:
    memory = NodeMemory(10)
    quiet, busy = NodeCache(memory), NodeCache(memory)
    quiet.add([node(1)])
    for index in range(20):
        busy.add([node(index)])
    assert len(quiet) == 0
    assert quiet.get(1) is None
    assert busy.get(19) == node(19)


def test_of_too_many_at_once_the_last_are_remembered() -> None:
    memory = NodeMemory(10)
    cache = NodeCache(memory)
    for _ in range(3):
        cache.add([node(index) for index in range(1000)])
        assert len(cache) <= 30
        assert cache.get(999) == node(999)
        assert cache.get(0) is None


def test_logs_with_one_memory_still_read_all_their_nodes() -> None:
    memory = NodeMemory(8)
    logs = []
    for _ in range(3):
        manifest = default_manifest(PAIR.public_key)
        log = Log(DictRecords(), key=manifest.key, manifest=manifest, key_pair=PAIR, memory=memory)
        log.append([b"%d" % index for index in range(40)])
        logs.append(log)
    for log in logs:
        assert all(log.node(index) is not None for index in range(79) if index != 63)
    assert sum(len(log._cache) for log in logs) <= 24
