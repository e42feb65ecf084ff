"""Logs that are taken into a group because peers told of them."""

from __future__ import annotations

import pytest

from covey.networker.accepting import Accepting
from tests.networker.test_head_table import key


def test_one_giver_has_half_of_the_places() -> None:
    accepting = Accepting(accept=True, most=10)
    assert sum(accepting.takes(key(number), b"one") for number in range(20)) == 5
    assert sum(accepting.takes(key(100 + number), b"two") for number in range(20)) == 5
    assert not accepting.takes(key(200), b"three")
    assert len(accepting) == 10


def test_a_log_that_is_removed_gives_its_place_back() -> None:
    accepting = Accepting(accept=True, most=2)
    for number in range(100):
        assert accepting.takes(key(number), b"one")
        assert not accepting.takes(key(1000), b"one")
        accepting.remove(key(number))
        accepting.remove(key(number))
    assert len(accepting) == 0


def test_what_is_not_accepted_takes_no_place() -> None:
    assert not Accepting(accept=False, most=10).takes(key(1), b"one")
    choosy = Accepting(accept=lambda one: one == key(2), most=2)
    assert [choosy.takes(key(number), b"one") for number in range(4)] == [False, False, True, False]
    assert len(choosy) == 1


def test_an_accept_that_fails_is_told_and_takes_nothing_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Exception] = []

    def broken(_key: bytes) -> bool:
        raise RuntimeError("a bug of the application")

    accepting = Accepting(accept=broken, most=10, failed=told.append)
    assert not accepting.takes(key(1), b"one")
    assert len(accepting) == 0
    assert [str(error) for error in told] == ["a bug of the application"]
    assert key(1).hex() in caplog.text
