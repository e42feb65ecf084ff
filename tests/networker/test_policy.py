"""Which of two connections goes, which state follows, what a topic is: functions over data."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from covey.errors import UsageError
from covey.networker.policy import (
    Link,
    StreamInput,
    StreamState,
    dropped_of_two,
    is_loopback,
    next_state,
    topic_bytes,
)

SMALL, LARGE = b"\x01" * 32, b"\x02" * 32


@pytest.mark.parametrize(
    ("own", "remote", "initiator", "lost"),
    [
        (SMALL, LARGE, True, "existing"),
        (SMALL, LARGE, False, "new"),
        (LARGE, SMALL, True, "new"),
        (LARGE, SMALL, False, "existing"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_row_16_of_two_alike_the_newer_stays_where_the_smaller_key_dialled_it(
    own: bytes, remote: bytes, initiator: bool, lost: str, first: bool
) -> None:
    existing, new = Link("tcp", first), Link("tcp", initiator)
    assert dropped_of_two(existing, new, own_key=own, remote_key=remote) == lost


@pytest.mark.parametrize("initiators", list(itertools.product((True, False), repeat=2)))
@pytest.mark.parametrize(("own", "remote"), [(SMALL, LARGE), (LARGE, SMALL)])
def test_row_16_tcp_beats_every_other_transport(
    own: bytes, remote: bytes, initiators: tuple[bool, bool]
) -> None:
    first, second = initiators
    keys = {"own_key": own, "remote_key": remote}
    assert dropped_of_two(Link("utp", first), Link("tcp", second), **keys) == "existing"
    assert dropped_of_two(Link("tcp", first), Link("utp", second), **keys) == "new"


@pytest.mark.parametrize("types", list(itertools.product(("tcp", "utp", "udx"), repeat=2)))
@pytest.mark.parametrize("dialled", list(itertools.product((True, False), repeat=2)))
def test_row_16_both_sides_drop_the_same_connection(
    types: tuple[str, str], dialled: tuple[bool, bool]
) -> None:
    """Both meet the two connections in the same order."""
    here = [Link(kind, by_us) for kind, by_us in zip(types, dialled, strict=True)]
    there = [Link(kind, not by_us) for kind, by_us in zip(types, dialled, strict=True)]
    ours = dropped_of_two(here[0], here[1], own_key=SMALL, remote_key=LARGE)
    theirs = dropped_of_two(there[0], there[1], own_key=LARGE, remote_key=SMALL)
    assert ours == theirs


def test_row_16_crossing_dials_agree_although_each_side_meets_its_own_first() -> None:
    """Each side completes its own dial first, and the other one's second."""
    of_small = dropped_of_two(
        Link("tcp", True), Link("tcp", False), own_key=SMALL, remote_key=LARGE
    )
    of_large = dropped_of_two(
        Link("tcp", True), Link("tcp", False), own_key=LARGE, remote_key=SMALL
    )
    assert (of_small, of_large) == ("new", "existing"), "the dial of the smaller key stays on both"


def test_row_17_oneself_is_no_second_connection() -> None:
    with pytest.raises(UsageError):
        dropped_of_two(Link("tcp", True), Link("tcp", False), own_key=SMALL, remote_key=SMALL)


REACHED = {
    ("opening", "accepted"): "active",
    ("opening", "dropped"): "duplicate",
    ("opening", "ended"): "closed",
    ("active", "dropped"): "duplicate",
    ("active", "ended"): "closed",
    ("duplicate", "dropped"): "duplicate",
    ("duplicate", "ended"): "closed",
}


@pytest.mark.parametrize("state", StreamState)
@pytest.mark.parametrize("given", StreamInput)
def test_section_5_every_state_takes_what_can_happen_and_refuses_the_rest(
    state: StreamState, given: StreamInput
) -> None:
    expected = REACHED.get((str(state), str(given)))
    if expected is None:
        with pytest.raises(UsageError):
            next_state(state, given)
    else:
        assert next_state(state, given) == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost"])
def test_addresses_of_this_machine_are_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "::2", "example.org", "128.0.0.1", "fe80::1"])
def test_other_addresses_are_not(host: str) -> None:
    assert not is_loopback(host)


def test_row_3_a_topic_is_32_bytes_or_their_hexadecimal_digits() -> None:
    raw = bytes(range(32))
    for given in (raw, bytearray(raw), memoryview(raw), raw.hex(), raw.hex().upper()):
        assert topic_bytes(given) == raw


@pytest.mark.parametrize("topic", [b"", b"x" * 31, b"x" * 33, "ab", "zz" * 32, "ab " * 32, "notes"])
def test_row_3_anything_else_is_a_value_error(topic: Any) -> None:
    with pytest.raises(ValueError, match="a topic"):
        topic_bytes(topic)


@pytest.mark.parametrize("topic", [None, 32, ["a"] * 32])
def test_row_3_other_types_are_a_type_error(topic: Any) -> None:
    with pytest.raises(TypeError, match="a topic"):
        topic_bytes(topic)
