"""The search for the fork point: every cut of every small log, sparse readers, hostile answers."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.errors import UsageError, VerifyError
from covey.feed import flat_tree
from covey.feed.hashes import Node
from covey.feed.messages import Data, HashData
from covey.feed.reorg import Reorg
from tests.feed.plain_logs import PlainLog, ask


@dataclass
class Search:
    """A reader that searches with a writer's answers."""

    reader: PlainLog
    writer: PlainLog
    requests: int = 0

    def start(self, length: int | None = None) -> Reorg:
        end = self.writer.length if length is None else length
        request = ask(fork=self.writer.fork, upgrade=(0, end), manifest=True)
        return Reorg(
            self.writer.answer(request),
            length=self.reader.length,
            get_node=self.reader.nodes.get,
            authority=self.reader.authority,
        )

    def answer(self, reorg: Reorg, block: int) -> Data:
        assert reorg.wanted is not None
        part = reorg.wanted.request(block)
        request = ask(fork=self.writer.fork, hash_=(part.index, part.nodes))
        return self.writer.answer(request)

    def run(self, reorg: Reorg, chance: random.Random) -> int:
        while (wanted := reorg.wanted) is not None:
            self.requests += 1
            reorg.receive(self.answer(reorg, chance.randrange(wanted.start, wanted.end)))
        assert reorg.shared is not None
        return reorg.shared

    def apply(self, reorg: Reorg) -> None:
        assert reorg.shared is not None
        self.reader.cut(reorg.shared)
        self.reader.nodes.update((node.index, node) for node in reorg.nodes)
        self.reader.roots, self.reader.length = reorg.head.roots, reorg.head.length
        self.reader.fork = reorg.head.fork


def blocks(count: int, label: str) -> list[bytes]:
    return [f"{label} {number}".encode() * (number % 3) for number in range(count)]


def fork_of(old: int, shared: int, more: int, held: range | None = None) -> Search:
    writer = PlainLog.of(*blocks(old, "old"))
    reader = PlainLog()
    if old:
        reader.catch_up(writer)
    reader.fetch(writer, range(old) if held is None else held)
    # Blocks of the same bytes at the fork point would be shared too.
    writer.rewrite(shared, *[b"new " + data for data in blocks(more, "new")])
    return Search(reader, writer)


def assert_whole(search: Search) -> None:
    """The reader's nodes are those of the writer, each with its way to a root.

    Paths are asked for up to a node that is here: a block below one without its way has no proof.
    """
    nodes, roots = search.reader.nodes, {root.index for root in search.reader.roots}
    for index, node in nodes.items():
        assert search.writer.nodes[index] == node
        if index not in roots:
            assert flat_tree.sibling(index) in nodes
            assert flat_tree.parent(index) in nodes


@given(
    st.integers(1, 40), st.integers(0, 40), st.integers(0, 40), st.integers(), st.integers(1, 80)
)
def test_a_reader_of_everything_finds_the_very_fork_point(
    old: int, shared: int, more: int, seed: int, asked: int
) -> None:
    shared = min(shared, old)
    search = fork_of(old, shared, more if shared else more + 1)
    # An answer to a shorter upgrade brings the rest as additional nodes.
    reorg = search.start(min(asked, search.writer.length))
    found = search.run(reorg, random.Random(seed))
    assert found == shared
    assert search.requests <= 7
    assert reorg.head.length == search.writer.length
    search.apply(reorg)
    assert_whole(search)
    assert search.reader.roots == search.writer.roots
    search.reader.fetch(search.writer, range(shared, search.writer.length))
    assert search.reader.blocks == search.writer.blocks


@given(
    st.integers(1, 40),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(),
    st.sets(st.integers(0, 39), max_size=9),
    st.integers(1, 80),
)
def test_a_sparse_reader_never_keeps_a_block_that_was_rewritten(
    old: int, shared: int, more: int, seed: int, held: set[int], asked: int
) -> None:
    shared = min(shared, old)
    search = fork_of(old, shared, more if shared else more + 1, range(0))
    search.reader.nodes.clear()
    fresh = PlainLog.of(*blocks(old, "old"))
    search.reader.nodes.update((root.index, root) for root in fresh.roots)
    search.reader.fetch(fresh, (block for block in held if block < old))
    reorg = search.start(min(asked, search.writer.length))
    found = search.run(reorg, random.Random(seed))
    assert found <= shared
    search.apply(reorg)
    assert_whole(search)
    for block, data in search.reader.blocks.items():
        assert search.writer.blocks[block] == data


def test_the_example_of_the_document() -> None:
    search = fork_of(16, 5, 11)
    reorg = search.start()
    assert reorg.wanted == (0, 16, 4)
    reorg.receive(search.answer(reorg, 8))
    assert reorg.wanted == (0, 8, 3)
    reorg.receive(search.answer(reorg, 4))
    assert reorg.shared == 5


def test_a_truncation_without_new_blocks_needs_no_search() -> None:
    reorg = fork_of(8, 3, 0).start()
    assert (reorg.wanted, reorg.shared, reorg.head.length, reorg.head.fork) == (None, 3, 3, 1)


def test_a_reader_without_blocks_shares_nothing() -> None:
    search = fork_of(0, 0, 9)
    assert search.start().shared == 0


def test_an_answer_after_the_end_changes_nothing() -> None:
    search = fork_of(16, 5, 11)
    reorg = search.start()
    answer = search.answer(reorg, 8)
    search.run(reorg, random.Random(1))
    before = reorg.nodes
    reorg.receive(answer)
    assert (reorg.shared, reorg.nodes) == (5, before)


def test_a_block_outside_what_is_wanted_is_not_asked_for() -> None:
    reorg = fork_of(16, 5, 11).start()
    assert reorg.wanted is not None
    with pytest.raises(UsageError):
        reorg.wanted.request(16)


def test_an_answer_that_leads_elsewhere_is_refused_and_changes_nothing() -> None:
    search = fork_of(16, 5, 11)
    reorg = search.start()
    good = search.answer(reorg, 8)
    assert good.hash is not None
    path = good.hash.nodes
    other = path[1]._replace(hash=bytes(32))
    moved = [path[0]._replace(size=path[0].size + 1), other, *path[2:]]
    root = search.writer.nodes[15]
    for bad in (
        good._replace(fork=0),
        good._replace(hash=None),
        good._replace(hash=HashData(16, path[:-1])),
        good._replace(hash=HashData(16, [path[0], other, *path[2:]])),
        good._replace(hash=HashData(16, moved)),
        good._replace(hash=HashData(16, [*path, root])),
        good._replace(hash=HashData(15, [root])),
    ):
        with pytest.raises(VerifyError):
            reorg.receive(bad)
        assert reorg.wanted == (0, 16, 4)
    reorg.receive(good)
    assert reorg.wanted == (0, 8, 3)


def test_sizes_that_are_only_claimed_are_not_stored() -> None:
    search = fork_of(16, 5, 11)
    reorg = search.start()
    good = search.answer(reorg, 8)
    assert good.hash is not None
    first, second, *rest = good.hash.nodes
    lie = [first._replace(size=first.size + 1), second._replace(size=second.size - 1), *rest]
    reorg.receive(good._replace(hash=HashData(16, lie)))
    assert {16, 18}.isdisjoint(node.index for node in reorg.nodes)
    search.run(reorg, random.Random(1))
    assert reorg.shared == 5
    for node in reorg.nodes:
        assert search.writer.nodes[node.index] == node


def test_a_claimed_node_is_proven_by_the_answer_from_below_it() -> None:
    search = fork_of(12, 9, 3)
    reorg = search.start(10)
    # 17 came as a root of ten blocks and 21 as an additional node: only their sum is proven.
    assert reorg.wanted == (8, 10, 1)
    assert {17, 21}.isdisjoint(node.index for node in reorg.nodes)
    reorg.receive(search.answer(reorg, 9))
    assert reorg.shared == 9
    assert search.writer.nodes[17] in reorg.nodes


def test_a_node_that_came_with_one_of_ours_as_its_sibling_is_proven_at_once() -> None:
    # The writer grew from 7 to 8 blocks while it was asked for 7: the last leaf is additional.
    search = fork_of(40, 7, 1)
    reorg = search.start(7)
    assert reorg.shared == 7
    assert search.writer.nodes[14] in reorg.nodes


def test_the_sibling_of_a_node_that_was_proven_later_is_proven_with_it() -> None:
    search = fork_of(8, 1, 12)
    reorg = search.start(4)
    # 3 came as the root of four blocks and 11 as an additional node; 3 is asked for.
    assert reorg.wanted == (0, 4, 2)
    search.run(reorg, random.Random(1))
    assert {search.writer.nodes[3], search.writer.nodes[11]} <= set(reorg.nodes)


def test_a_lie_about_that_sibling_is_put_right() -> None:
    search = fork_of(8, 1, 12)
    request = ask(fork=1, upgrade=(0, 4), manifest=True)
    answer = search.writer.answer(request)
    upgrade = answer.upgrade
    assert upgrade is not None
    assert (upgrade.nodes[-1].index, upgrade.additional_nodes[0].index) == (3, 11)
    third, eleventh = upgrade.nodes[-1], upgrade.additional_nodes[0]
    moved = upgrade._replace(
        nodes=[third._replace(size=third.size + 1)],
        additional_nodes=[
            eleventh._replace(size=eleventh.size - 1),
            *upgrade.additional_nodes[1:],
        ],
    )
    reader = search.reader
    reorg = Reorg(
        answer._replace(upgrade=moved),
        length=reader.length,
        get_node=reader.nodes.get,
        authority=reader.authority,
    )
    search.run(reorg, random.Random(1))
    assert {search.writer.nodes[3], search.writer.nodes[11]} <= set(reorg.nodes)


@pytest.mark.parametrize("grown", range(4, 17))
def test_blocks_that_came_since_the_search_began_are_not_shared(grown: int) -> None:
    writer = PlainLog.of(*blocks(16, "old"))
    writer.rewrite(9, *blocks(7, "new"))
    reader = PlainLog()
    reader.catch_up(PlainLog.of(*blocks(3, "old")))
    search = Search(reader, writer)
    reorg = search.start(12)
    longer = PlainLog.of(*blocks(grown, "old"))
    reader.catch_up(longer)
    reader.fetch(longer, range(grown))
    assert search.run(reorg, random.Random(grown)) == 3
    search.apply(reorg)
    assert_whole(search)


def test_a_lie_about_the_size_of_a_node_that_is_ours_is_refused() -> None:
    search = fork_of(16, 5, 11)
    reorg = search.start()
    reorg.receive(search.answer(reorg, 8))
    good = search.answer(reorg, 4)
    assert good.hash is not None
    first, second, *rest = good.hash.nodes
    lie = [first._replace(size=first.size + 1), second._replace(size=second.size - 1), *rest]
    with pytest.raises(VerifyError):
        reorg.receive(good._replace(hash=HashData(8, lie)))
    reorg.receive(good)
    assert reorg.shared == 5


def test_a_fork_that_nobody_signed_is_refused() -> None:
    search = fork_of(8, 3, 4)
    answer = search.writer.answer(ask(fork=1, upgrade=(0, 7)))
    assert answer.upgrade is not None
    wrong: Node = answer.upgrade.nodes[0]._replace(hash=bytes(32))
    nodes = [wrong, *answer.upgrade.nodes[1:]]
    for bad in (
        answer._replace(fork=2),
        answer._replace(upgrade=None),
        answer._replace(upgrade=answer.upgrade._replace(nodes=nodes)),
        answer._replace(upgrade=answer.upgrade._replace(start=1, length=6)),
        answer._replace(upgrade=answer.upgrade._replace(signature=None)),
    ):
        with pytest.raises(VerifyError):
            Reorg(
                bad,
                length=search.reader.length,
                get_node=search.reader.nodes.get,
                authority=search.reader.authority,
            )
