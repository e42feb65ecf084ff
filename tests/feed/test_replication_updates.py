"""`update` is answered in bounded time, whatever the peers that are asked do or leave undone."""

from __future__ import annotations

from typing import Any

import pytest

from covey.feed.messages import Request, Sync
from covey.feed.replication_choices import REQUEST_TIMEOUT
from covey.feed.replication_peer import REQUEST, SYNC
from covey.feed.replication_updates import LONGEST_QUESTION, PEERS_CONSULTED
from tests.feed.replication_links import Link, Side, pass_time, run
from tests.feed.test_replicator import numbered

LENGTH = 5


def mute(_sender: Side, kind: int, message: Any) -> Any:
    """Neither a head nor an answer arrives."""
    return message if kind == REQUEST else None


def reader_of(writer: Side) -> Side:
    """One who has the head, and nobody any more."""
    reader = Side()
    link = Link(writer, reader)
    run(link)
    link.cut()
    assert reader.log.length == LENGTH
    return reader


def silent_peer(reader: Side, head: Sync | None) -> Link:
    """A peer that tells this head, or none, and then nothing for ever."""
    stranger = Side(downloading=False)
    link = Link(stranger, reader)
    link.drops = mute
    link.end_of(reader).incoming.clear()
    if head is not None:
        link.inject(reader, SYNC, head)
    return link


def asked(reader: Side, **options: Any) -> list[Any]:
    """The answers to an `update`."""
    answers: list[Any] = []
    reader.replicator.want_update(done=answers.append, **options)
    return answers


HEADS = {
    "it never tells a head": None,
    "it never hears of ours": Sync(0, 50, LENGTH - 1, True, True, True, True, False),
    "it never proves its longer one": Sync(0, 50, LENGTH, True, True, True, True, False),
    "it never proves its higher fork": Sync(9, 50, 0, True, True, True, True, False),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("wait", [False, True])
def test_a_silent_peer_counts_as_having_nothing_after_its_time(name: str, wait: bool) -> None:
    reader = reader_of(Side.of(*numbered(LENGTH)))
    link = silent_peer(reader, HEADS[name])
    answers = asked(reader, wait=wait)
    pass_time(REQUEST_TIMEOUT - 1, link)
    assert answers == [], "it may still say something"
    pass_time(2, link)
    assert answers == [False]
    assert link.open


def test_who_lets_requests_lie_does_not_delay_the_next_question() -> None:
    reader = reader_of(Side.of(*numbered(LENGTH)))
    link = silent_peer(reader, HEADS["it never proves its longer one"])
    asked(reader)
    pass_time(REQUEST_TIMEOUT + 1, link)
    answers = asked(reader)
    run(link)
    assert answers == [False]


def test_behind_a_silent_peer_the_longer_head_of_another_is_found() -> None:
    writer = Side.of(*numbered(LENGTH))
    reader = reader_of(writer)
    writer.log.append([b"more"])
    bad = silent_peer(reader, HEADS["it never proves its longer one"])
    answers = asked(reader)
    run(bad)
    good = Link(writer, reader)
    pass_time(REQUEST_TIMEOUT + 1, bad, good)
    assert answers == [True]
    assert reader.log.length == LENGTH + 1


def test_many_silent_peers_together_delay_the_answer_no_longer_than_three() -> None:
    reader = reader_of(Side.of(*numbered(LENGTH)))
    head = HEADS["it never proves its longer one"]
    links = [silent_peer(reader, head) for _ in range(2 * PEERS_CONSULTED)]
    answers = asked(reader)
    pass_time(LONGEST_QUESTION - 1, *links)
    assert answers == []
    pass_time(2, *links)
    assert answers == [False]


def test_the_time_of_a_question_runs_while_there_is_somebody_to_answer_it() -> None:
    writer = Side.of(*numbered(LENGTH))
    reader = reader_of(writer)
    answers = asked(reader, wait=True)
    reader.work()
    writer.now = reader.now = 10 * REQUEST_TIMEOUT
    writer.log.append([b"more"])
    link = Link(writer, reader)
    reader.work()
    assert answers == [], "it has only just come"
    run(link)
    assert answers == [True]


def test_a_peer_that_lets_a_fork_search_lie_rests_longer_each_time() -> None:
    reader = reader_of(Side.of(*numbered(LENGTH)))
    link = silent_peer(reader, HEADS["it never proves its higher fork"])
    pass_time(REQUEST_TIMEOUT * 20, link)
    questions = [
        message
        for who, kind, message in link.trace
        if who is reader and kind == REQUEST and isinstance(message, Request)
    ]
    assert all(message.fork == 9 for message in questions)
    assert 3 <= len(questions) <= 6, "each rest is twice the one before"
    assert link.open
