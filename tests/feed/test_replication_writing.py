"""Writes that end in the middle of something: nothing is stored that counted on what was lost."""

from __future__ import annotations

from typing import Any

from covey.feed.log_events import Appended, Truncated
from covey.feed.replication_choices import SWAP_AFTER
from covey.feed.replication_events import StoreFailed
from covey.feed.replication_peer import CANCEL, DATA, REQUEST
from tests.feed.memory_records import heard
from tests.feed.replication_links import Link, Side, pass_time, run
from tests.feed.test_replicator import assert_same, numbered, sent


def step_through(*links: Link) -> None:
    """Deliver what is under way; nothing that was staged is written."""
    while sum(link.step() for link in links):
        pass


def asked_twice() -> tuple[Side, list[Link]]:
    """A reader to which block 5 is under way from two peers, which builds on block 4.

    That one is staged.
    """
    writer, reader = Side.of(*numbered(16)), Side()
    links = [Link(writer, reader), Link(writer, reader)]
    run(*links)
    for index in (4, 5):
        step_through(*links)
        reader.replicator.want_block(index)
        reader.replicator.handle_timer(reader.now)
    reader.replicator.next_timer()
    reader.now += 2 * SWAP_AFTER
    reader.replicator.handle_timer(reader.now)
    asked = [m.block for link in links for m in sent(link, reader, REQUEST) if m.block]
    assert sorted(part.index for part in asked) == [4, 5, 5]
    assert {part.nodes for part in asked if part.index == 5} == {0}, "its leaf came with block 4"
    assert reader.log.is_staged(4)
    return reader, links


def test_a_write_that_failed_is_not_heard_of_between_the_check_of_an_answer_and_its_storing() -> (
    None
):
    reader, links = asked_twice()
    reader.records.failing = True
    reader.write_beside()
    reader.records.failing = False
    assert reader.log.writing_blocks == 1
    step_through(*links)
    assert sum(len(sent(link, reader, CANCEL)) for link in links) == 1
    assert reader.log.writing_blocks == 1, "its end is heard of only now"
    reader.end_writing()
    assert reader.told(StoreFailed)
    assert not reader.log.is_staged(5)
    reader.replicator.resume(reader.now)
    run(*links)
    assert sorted(reader.blocks) == [4, 5]
    list(reader.log.verify_all())
    other = Side()
    link = Link(reader, other)
    other.replicator.want_block(5)
    run(link)
    assert sorted(other.blocks) == [5], "it can be proven"


def test_a_fork_is_not_gone_over_to_while_an_answer_is_stored() -> None:
    blocks = numbered(12)
    writer, relay, reader = Side.of(*blocks[:8]), Side(), Side()
    above, below = Link(writer, relay), Link(relay, reader)
    relay.replicator.want_range()
    run(above, below)
    writer.log.append(blocks[8:])
    heads: list[Any] = []

    def keep_heads(sender: Side, kind: int, message: Any) -> Any:
        if sender is relay and kind == DATA and message.upgrade is not None:
            heads.append(message)
            return None
        return message

    below.drops = keep_heads
    run(above)
    above.cut()
    writer.log.truncate(8)
    writer.log.append(numbered(5))
    reader.replicator.want_block(1)
    reader.replicator.handle_timer(reader.now)
    step_through(below)
    assert reader.log.is_staged(1)
    (head,) = heads
    newer = Link(writer, reader)
    while reader.replicator.downloads.forks.finished(reader.now) is None:
        reader.replicator.resume(reader.now)
        reader.replicator.handle_timer(reader.now)
        reader.replicator.downloads.suspended = True
        assert newer.step()
    # The end of this write, for which the answer has to wait, has the reader go on.
    reader.write_beside(hold_back=True)
    events = heard(reader.log)
    below.inject(reader, DATA, head)
    changes = [event for event in events if isinstance(event, Appended | Truncated)]
    assert changes == [Appended(12, 0, 8), Truncated(8, 1, 12), Appended(13, 1, 8)]
    assert below.open
    assert not below.errors
    run(newer, below)
    reader.replicator.want_range()
    pass_time(100.0, newer, below)
    assert_same(reader, writer)
