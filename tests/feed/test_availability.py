"""What a remote claims: as a plain set while it is honest, and bounded when it is not."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.errors import ProtocolError
from covey.feed.availability import Availability
from covey.feed.bitfield import PAGE_BITS, Bitfield
from covey.feed.messages import MAX_BITFIELD_WORDS
from covey.limits import Limits

LAST = (1 << 53) - 1
AHEAD = Limits().claims_ahead
WIDE = 3 * PAGE_BITS

place = st.integers(0, WIDE)
claim = st.tuples(st.just("range"), place, place, st.booleans())
words = st.tuples(
    st.just("bitfield"), st.integers(0, WIDE // 32), st.binary(max_size=600), st.just(False)
)
message = claim | words


def claimed(availability: Availability, end: int = 4 * WIDE) -> set[int]:
    return {each for low, high in availability.ranges(0, end) for each in range(low, high)}


def told(messages: list[tuple[str, int, int | bytes, bool]]) -> tuple[Availability, set[int]]:
    availability, plain = Availability(), set[int]()
    for _, start, what, drop in messages:
        if isinstance(what, int):
            availability.range(start, what, drop, 0)
            touched = set(range(start, start + what))
            plain = plain - touched if drop else plain | touched
        else:
            data = what[: len(what) & ~3]
            availability.bitfield(32 * start, data, 0)
            plain -= set(range(32 * start, 32 * start + 8 * len(data)))
            bits = int.from_bytes(data, "little")
            plain |= {32 * start + bit for bit in range(8 * len(data)) if bits >> bit & 1}
    return availability, plain


@settings(max_examples=60)
@given(st.lists(message, max_size=8), place, place)
def test_claims_are_those_of_a_plain_set(
    messages: list[tuple[str, int, int | bytes, bool]], start: int, end: int
) -> None:
    availability, plain = told(messages)
    assert claimed(availability) == plain
    inside = plain & set(range(start, end))
    assert availability.first_in(start, end) == min(inside, default=None)
    assert availability.count(start, end) == len(inside)
    assert availability.count() == len(plain)
    assert availability.covers(start, end) == (set(range(start, end)) <= plain)
    assert availability.contiguous == min(set(range(len(plain) + 1)) - plain)
    assert (start in availability) == (start in plain)
    availability.truncate(start)
    assert claimed(availability) == {each for each in plain if each < start}


@settings(max_examples=60)
@given(st.lists(message, max_size=6), st.sets(place, max_size=40), place, place)
def test_the_next_block_to_ask_for_is_claimed_and_not_held(
    messages: list[tuple[str, int, int | bytes, bool]], held: set[int], start: int, end: int
) -> None:
    availability, plain = told(messages)
    field = Bitfield()
    for each in held:
        field.set(each, True)
    wanted = (plain - held) & set(range(start, end))
    assert availability.first_in(start, end, field) == min(wanted, default=None)


def test_a_range_from_block_0_raises_the_contiguous_claim() -> None:
    availability = Availability()
    availability.range(0, 5, False, 5)
    availability.range(0, 3, False, 5)
    assert availability.contiguous == 5


def test_a_single_block_is_claimed_alone() -> None:
    availability = Availability()
    availability.range(7, 1, False, 10)
    assert claimed(availability) == {7}
    assert availability.contiguous == 0


def test_drop_retracts_and_lowers_the_contiguous_claim() -> None:
    availability = Availability()
    availability.range(0, 10, False, 10)
    availability.range(4, 6, True, 10)
    assert availability.contiguous == 4
    assert claimed(availability) == {0, 1, 2, 3}


def test_a_drop_in_the_middle_leaves_what_is_behind_it() -> None:
    availability = Availability()
    availability.range(0, 10, False, 10)
    availability.range(4, 1, True, 10)
    assert availability.contiguous == 4
    assert 5 in availability


def test_a_bitfield_is_the_truth_about_its_blocks() -> None:
    availability = Availability()
    availability.range(0, 96, False, 96)
    availability.bitfield(32, bytes.fromhex("fffffffe"), 96)
    assert availability.contiguous == 56
    assert claimed(availability, 96) == set(range(96)) - {56}


def test_a_claim_past_the_head_is_remembered_until_the_sync_comes() -> None:
    availability = Availability()
    availability.range(0, 6, False, 5)
    availability.range(AHEAD + 4, 1, False, 5)
    assert 5 in availability
    assert AHEAD + 4 in availability


def test_claims_too_far_past_the_head_are_cut() -> None:
    availability = Availability()
    availability.range(0, LAST, False, 5)
    availability.range(AHEAD + 5, 1, False, 5)
    availability.bitfield(AHEAD - 32, b"\xff" * 16, 5)
    assert availability.count() == AHEAD + 5
    assert AHEAD + 5 not in availability


def test_claims_near_2_to_the_53_cost_nothing_whatever_length_is_told() -> None:
    availability = Availability()
    availability.range(0, LAST, False, LAST)
    availability.range(LAST, LAST, False, LAST)
    availability.range(LAST, LAST, True, LAST)
    assert availability.pieces <= 2
    assert availability.first_in(1 << 52, LAST) == 1 << 52
    availability.range(1 << 40, LAST, True, LAST)
    assert availability.contiguous == 1 << 40
    availability.truncate(0)
    assert availability.pieces == 0


def test_a_smaller_bound_ahead_is_kept_to() -> None:
    availability = Availability(dataclasses.replace(Limits(), claims_ahead=3))
    availability.range(0, 100, False, 10)
    assert availability.contiguous == 13


def scattered(availability: Availability, count: int) -> None:
    """Claim one block of every second page of a log of all possible length."""
    for number in range(count):
        availability.range(2 * number * PAGE_BITS, 1, False, LAST)


def test_single_blocks_all_over_reach_the_bound_and_the_newest_stay() -> None:
    limits = Limits()
    availability = Availability(limits)
    scattered(availability, limits.max_claims)
    assert availability.pieces == limits.max_claims
    scattered(availability, limits.max_claims + 10)
    assert availability.pieces == limits.max_claims
    assert 2 * (limits.max_claims + 9) * PAGE_BITS in availability
    assert 0 not in availability


def test_full_pages_all_over_reach_the_bound_too() -> None:
    availability = Availability(dataclasses.replace(Limits(), max_claims=8))
    for number in range(20):
        availability.range(2 * number * PAGE_BITS, PAGE_BITS, False, LAST)
        assert availability.pieces <= 8
    assert availability.count() == 8 * PAGE_BITS
    assert 38 * PAGE_BITS in availability


def test_bitfields_all_over_reach_the_bound_too() -> None:
    availability = Availability(dataclasses.replace(Limits(), max_claims=100))
    for number in range(3):
        start = number * 32 * MAX_BITFIELD_WORDS
        availability.bitfield(start, b"\x55" * 4 * MAX_BITFIELD_WORDS, LAST)
        assert availability.pieces == 100
        assert start in availability


def test_above_the_bound_what_is_far_from_the_newest_claim_is_forgotten() -> None:
    availability = Availability(dataclasses.replace(Limits(), max_claims=4))
    scattered(availability, 4)
    availability.range(1 * PAGE_BITS, 1, False, LAST)
    kept = [page for page in range(8) if page * PAGE_BITS in availability]
    assert kept == [0, 1, 2, 4]


def test_a_block_that_could_not_be_had_is_no_longer_claimed() -> None:
    availability = Availability()
    availability.range(0, 10, False, 10)
    availability.refute(3)
    assert availability.first_in(3, 10) == 4


@pytest.mark.parametrize("start", [1, 31, 33, LAST])
def test_a_bitfield_off_the_word_boundary_is_refused(start: int) -> None:
    availability = Availability()
    with pytest.raises(ProtocolError, match="multiple of 32"):
        availability.bitfield(start, bytes(4), 10)


def test_a_bitfield_of_too_many_words_is_refused() -> None:
    availability = Availability()
    availability.bitfield(0, bytes(4 * MAX_BITFIELD_WORDS), 10)
    with pytest.raises(ProtocolError, match="words"):
        availability.bitfield(0, bytes(4 * MAX_BITFIELD_WORDS + 4), 10)
    with pytest.raises(ProtocolError, match="words"):
        availability.bitfield(0, bytes(3), 10)
