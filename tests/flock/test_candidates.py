"""The bounded tables of candidates and the queue."""

from __future__ import annotations

from covey.flock.candidates import Candidate, CandidateState, CandidateTable, DialQueue
from covey.flock.policy import Reason


def _candidate(number: int, *, name: bytes = b"a", host: str | None = None) -> Candidate:
    return Candidate(
        host=host or f"10.0.{number // 256}.{number % 256}",
        port=1000 + number,
        name=name,
        source="x",
    )


def test_a_channel_remembers_a_bounded_number_of_candidates() -> None:
    table = CandidateTable(per_topic=4, ports_per_host=16)
    candidates = [_candidate(number) for number in range(10)]
    pushed = [table.add(candidate) for candidate in candidates]
    assert pushed == [None] * 4 + candidates[:6]
    assert table.of(b"a") == candidates[6:]
    assert len(table) == 4


def test_being_found_again_keeps_a_candidate() -> None:
    table = CandidateTable(per_topic=2, ports_per_host=16)
    first, second, third = (_candidate(number) for number in range(3))
    table.add(first)
    table.add(second)
    assert table.get(b"a", first.host, first.port) is first
    assert table.add(third) is second


def test_connected_candidates_are_not_pushed_out() -> None:
    table = CandidateTable(per_topic=2, ports_per_host=16)
    first, second = _candidate(0), _candidate(1)
    first.state, second.state = CandidateState.CONNECTED, CandidateState.CONNECTING
    table.add(first)
    table.add(second)
    assert table.refusal(b"a", "10.9.9.9") is Reason.TOO_MANY_CANDIDATES
    second.state = CandidateState.WAITING
    assert table.refusal(b"a", "10.9.9.9") is None
    assert table.add(_candidate(2)) is second


def test_a_channel_of_one_candidate_can_replace_it() -> None:
    table = CandidateTable(per_topic=1, ports_per_host=16)
    first, second = _candidate(0), _candidate(1)
    table.add(first)
    assert table.add(second) is first
    assert table.of(b"a") == [second]


def test_ports_of_one_host_are_bounded_per_topic() -> None:
    table = CandidateTable(per_topic=100, ports_per_host=3)
    candidates = [_candidate(number, host="10.0.0.1") for number in range(3)]
    for candidate in candidates:
        assert table.refusal(b"a", "10.0.0.1") is None
        table.add(candidate)
    assert table.refusal(b"a", "10.0.0.1") is Reason.TOO_MANY_PORTS
    assert table.refusal(b"a", "10.0.0.2") is None
    assert table.refusal(b"b", "10.0.0.1") is None
    table.remove(candidates[0])
    table.remove(candidates[0])
    assert table.refusal(b"a", "10.0.0.1") is None


def test_candidates_of_all_channels_are_found_by_address() -> None:
    table = CandidateTable(per_topic=4, ports_per_host=16)
    here, there = _candidate(1), _candidate(1, name=b"b")
    table.add(here)
    table.add(there)
    assert table.at(here.host, here.port) == [here, there]
    table.remove(here)
    assert table.at(here.host, here.port) == [there]
    assert not table.knows(here)


def test_the_queue_serves_channels_in_turn() -> None:
    queue = DialQueue()
    flood = [_candidate(number) for number in range(5)]
    other = [_candidate(number, name=b"b") for number in range(2)]
    for candidate in [*flood, *other, flood[0]]:
        queue.push(candidate)
    assert len(queue) == 7
    order = [queue.pop() for _ in range(7)]
    assert order == [flood[0], other[0], flood[1], other[1], *flood[2:]]
    assert queue.pop() is None


def test_a_candidate_can_leave_the_queue() -> None:
    queue = DialQueue()
    first, second = _candidate(0), _candidate(1)
    queue.push(first)
    queue.push(second)
    assert queue.remove(first)
    assert not queue.remove(first)
    assert len(queue) == 1
    assert queue.pop() is second
