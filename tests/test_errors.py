"""The error tree: one root, the right parents, fields that survive."""

from __future__ import annotations

import inspect

import pytest

from covey import errors
from covey.errors import (
    AddressError,
    ClosedError,
    ConnectError,
    ConnectTimeout,
    CoveyError,
    DecodeError,
    DialFailed,
    EncodeError,
    HandshakeError,
    HandshakeTimeout,
    HubClosed,
    LimitError,
    ProtocolError,
    Refused,
    SelfConnection,
)

ALL = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if value.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", ALL)
def test_everything_descends_from_one_root_and_says_what_it_means(kind: type) -> None:
    assert issubclass(kind, CoveyError)
    assert kind.__doc__


def test_nothing_of_ours_looks_like_a_cancellation_or_an_operating_system_error() -> None:
    for kind in ALL:
        assert issubclass(kind, Exception)
        assert not issubclass(kind, OSError)


@pytest.mark.parametrize(
    ("kind", "parent"),
    [
        (AddressError, ValueError),
        (EncodeError, ValueError),
        (DecodeError, ProtocolError),
        (HubClosed, ClosedError),
        (DialFailed, ConnectError),
        (ConnectTimeout, ConnectError),
        (HandshakeTimeout, HandshakeError),
        (HandshakeError, ConnectError),
        (SelfConnection, ConnectError),
        (Refused, ConnectError),
    ],
)
def test_one_except_clause_catches_what_belongs_together(kind: type, parent: type) -> None:
    assert issubclass(kind, parent)


def test_what_a_remote_did_is_told_from_what_our_caller_did() -> None:
    assert not issubclass(EncodeError, ProtocolError)
    assert not issubclass(ProtocolError, ConnectError | ValueError)


def test_errors_carry_their_fields() -> None:
    limit = LimitError("too many", limit="max_staged", allowed=10)
    assert (str(limit), limit.limit, limit.allowed) == ("too many", "max_staged", 10)
    refused = Refused("banned", reason="ban", address="net:h:1~noise")
    assert (refused.reason, refused.address, refused.code) == ("ban", "net:h:1~noise", None)
    plain = ConnectError("no way")
    assert (plain.address, plain.code) == (None, None)


def test_a_failed_dial_keeps_the_cause_of_each_address_and_is_not_changed_from_outside() -> None:
    causes: dict[str, Exception] = {"127.0.0.1": ConnectionRefusedError()}
    failed = DialFailed("failed", address="net:h:1", code="ECONNREFUSED", causes=causes)
    causes.clear()
    assert list(failed.causes) == ["127.0.0.1"]
    assert failed.code == "ECONNREFUSED"
