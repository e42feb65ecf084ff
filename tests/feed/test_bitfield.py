"""The bits of held blocks, against a plain set and over runs of any width."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.errors import UsageError
from covey.feed.bitfield import PAGE_BITS, PAGE_BYTES, Bitfield, BitPages

WIDE = 4 * PAGE_BITS
near_an_edge = st.builds(
    lambda page, by: max(0, page * PAGE_BITS + by), st.integers(0, 4), st.integers(-33, 33)
)
position = near_an_edge | st.integers(0, WIDE)
ranges = st.tuples(st.just("range"), position, position, st.booleans())
bits = st.tuples(st.just("bit"), position, st.just(0), st.booleans())
steps = st.lists(ranges | bits, max_size=10)
Step = tuple[str, int, int, bool]


def apply(field: BitPages, changes: list[Step]) -> set[int]:
    plain = set[int]()
    for kind, start, end, value in changes:
        touched = {start} if kind == "bit" else set(range(start, end))
        changed = bool(touched - plain if value else touched & plain)
        if kind == "bit":
            assert field.set(start, value) == changed
        else:
            field.set_range(start, end, value)
        plain = plain | touched if value else plain - touched
    return plain


def as_set(words: bytes, start: int = 0) -> set[int]:
    return {
        start + place for place in range(8 * len(words)) if words[place >> 3] >> (place & 7) & 1
    }


@settings(max_examples=60)
@given(steps, st.lists(position, min_size=2, max_size=6))
def test_bits_are_those_of_a_plain_set(changes: list[Step], looks: list[int]) -> None:
    field = Bitfield()
    plain = apply(field, changes)
    assert as_set(field.words(0, WIDE // 32 + 4)) == plain
    assert field.count() == len(plain)
    for look in looks:
        assert field.get(look) == (look in plain)
        assert field.first_set(look) == min((each for each in plain if each >= look), default=None)
        expected = look
        while expected in plain:
            expected += 1
        assert field.first_unset(look) == expected
    start, end = looks[:2]
    inside = plain & set(range(start, end))
    assert field.count(start, end) == len(inside)
    assert field.count(start) == len([each for each in plain if each >= start])
    runs = list(field.ranges(start, end))
    assert {each for low, high in runs for each in range(low, high)} == inside
    assert all(runs[place][1] < runs[place + 1][0] for place in range(len(runs) - 1))


@settings(max_examples=60)
@given(steps, steps, position, position)
def test_the_first_that_another_lacks_is_that_of_plain_sets(
    changes: list[Step], others: list[Step], start: int, end: int
) -> None:
    field, other = BitPages(), Bitfield()
    lacking = apply(field, changes) - apply(other, others)
    expected = min(lacking & set(range(start, end)), default=None)
    assert field.first_without(start, end, other) == expected


@settings(max_examples=60)
@given(steps, st.integers(0, WIDE // 32), st.binary(max_size=1100))
def test_words_replace_what_was_there(changes: list[Step], word: int, data: bytes) -> None:
    words = data[: len(data) & ~3]
    field = Bitfield()
    plain = apply(field, changes)
    start = 32 * word
    field.set_words(start, words)
    plain -= set(range(start, start + 8 * len(words)))
    plain |= as_set(words, start)
    assert as_set(field.words(0, WIDE // 32 + 300)) == plain
    assert field.count() == len(plain)
    assert field.words(start, len(words) // 4) == words


@settings(max_examples=60)
@given(steps, steps)
def test_dirty_pages_bring_a_stored_copy_up_to_date(before: list[Step], after: list[Step]) -> None:
    field = Bitfield()
    apply(field, before)
    stored = field.take_dirty_pages()
    assert field.take_dirty_pages() == {}
    again = Bitfield(stored)
    assert again.take_dirty_pages() == {}
    for each in (field, again):
        for kind, start, end, value in after:
            if kind == "bit":
                each.set(start, value)
            else:
                each.set_range(start, end, value)
    changed = again.take_dirty_pages()
    assert changed == field.take_dirty_pages()
    stored |= changed
    assert Bitfield(stored).words(0, WIDE // 32 + 4) == field.words(0, WIDE // 32 + 4)
    assert all(len(page) == PAGE_BYTES for page in stored.values())


@settings(max_examples=40)
@given(steps)
def test_only_mixed_pages_and_runs_take_memory(changes: list[Step]) -> None:
    field = Bitfield()
    apply(field, changes)
    pages = [field.page(number) for number in range(WIDE // PAGE_BITS + 2)]
    mixed = [page for page in pages if page.strip(b"\0") and page.strip(b"\xff")]
    fulls = [page == b"\xff" * PAGE_BYTES for page in pages]
    runs = sum(now and not last for last, now in zip([False, *fulls], fulls, strict=False))
    assert field.pieces == len(mixed) + runs


def test_a_run_near_2_to_the_53_takes_three_pieces_and_no_time() -> None:
    field = BitPages()
    field.set_range(5, (1 << 53) - 5, True)
    assert field.pieces == 3
    assert field.count() == (1 << 53) - 10
    assert field.first_unset(5) == (1 << 53) - 5
    assert field.first_set((1 << 53) - 5) is None
    other = BitPages()
    other.set_range(0, 1 << 40, True)
    assert field.first_without(0, 1 << 53, other) == 1 << 40
    field.set_range(6, 1 << 53, False)
    assert list(field.ranges(0, 1 << 53)) == [(5, 6)]


def test_a_changed_bit_says_so_and_dirties_its_page_only() -> None:
    field = Bitfield()
    assert field.set(PAGE_BITS, True)
    assert not field.set(PAGE_BITS, True)
    assert field.take_dirty_pages() == {1: b"\1" + bytes(PAGE_BYTES - 1)}
    field.set(PAGE_BITS, True)
    field.set_range(PAGE_BITS + 3, PAGE_BITS + 3, True)
    assert field.take_dirty_pages() == {}
    field.set(PAGE_BITS, False)
    assert field.take_dirty_pages() == {1: bytes(PAGE_BYTES)}


def test_replaced_words_dirty_their_pages() -> None:
    field = Bitfield()
    field.set_words(PAGE_BITS - 32, b"\xff" * 8)
    assert set(field.take_dirty_pages()) == {0, 1}


def test_pages_that_could_not_be_written_are_given_out_again() -> None:
    field = Bitfield()
    field.set(1, True)
    taken = field.take_dirty_pages()
    field.mark_dirty(taken)
    assert field.take_dirty_pages() == taken


def test_bit_b_of_words_is_byte_b_over_8_mask_1_shifted_by_b_mod_8() -> None:
    field = Bitfield()
    for position in (4, 5, 6, 7, 32, 63):
        field.set(position, True)
    assert field.words(0, 2) == bytes.fromhex("f000000001000080")
    assert field.words(32, 1) == bytes.fromhex("01000080")
    assert field.words(64, 0) == b""


def test_a_page_of_another_size_is_refused() -> None:
    with pytest.raises(UsageError):
        Bitfield({0: bytes(PAGE_BYTES - 1)})


def test_words_off_their_boundary_are_refused() -> None:
    with pytest.raises(UsageError):
        Bitfield().words(31, 1)
    with pytest.raises(UsageError):
        Bitfield().set_words(31, bytes(4))
    with pytest.raises(UsageError):
        Bitfield().set_words(0, bytes(3))
