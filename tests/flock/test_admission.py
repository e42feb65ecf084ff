"""Whom the flock talks to."""

from __future__ import annotations

from typing import Any

import pytest

from covey.errors import UsageError
from covey.flock.admission import (
    Bans,
    Screen,
    Whitelist,
    canonical_host,
    undialable,
)
from covey.flock.policy import Reason


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("10.0.0.1", 0),
        ("10.0.0.1", 65536),
        ("10.0.0.1", -1),
        ("224.0.0.251", 80),
        ("239.1.2.3", 80),
        ("255.255.255.255", 80),
        ("240.0.0.1", 80),
        ("0.0.0.0", 80),
        ("0.1.2.3", 80),
        ("::", 80),
        ("ff02::1", 80),
        ("::ffff:224.0.0.1", 80),
        ("", 80),
    ],
)
def test_addresses_that_must_not_be_dialled(host: str, port: int) -> None:
    assert undialable(host, port)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "192.168.1.5", "8.8.8.8", "::1", "fe80::1%eth0", "2001:db8::1", "node.example"],
)
def test_ordinary_addresses_are_dialled(host: str) -> None:
    assert undialable(host, 3282) is None


def test_one_host_has_one_spelling() -> None:
    assert canonical_host("::ffff:10.0.0.1") == "10.0.0.1"
    assert canonical_host("2001:DB8:0::1") == "2001:db8::1"
    assert canonical_host("Node.Example") == "node.example"


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "192.168.0.1", "127.0.0.1", "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1"]
)
def test_a_public_source_cannot_know_a_local_address(host: str) -> None:
    assert public_refusal(host) == Reason.PRIVATE_ADDRESS


@pytest.mark.parametrize(
    "host",
    # What `ipaddress` calls private differs between versions of Python; our table does not.
    ["8.8.8.8", "2600::1", "node.example", "192.0.0.9", "198.18.0.1", "100.64.0.1", "2001:db8::1"],
)
def test_a_public_source_may_know_any_other(host: str) -> None:
    assert public_refusal(host) is None


def public_refusal(host: str) -> Reason | None:
    screen = Screen(
        whitelist=Whitelist(),
        bans=Bans(),
        is_own=lambda *_: False,
        public_sources=frozenset({"dht"}),
    )
    refusal = screen.refusal(b"x", host, 3282, "dht")
    return refusal[0] if refusal is not None else None


def test_an_empty_whitelist_allows_everybody() -> None:
    assert Whitelist().allows("10.0.0.1")
    assert Whitelist().allows("anything")


def test_a_whitelist_holds_addresses_networks_and_names() -> None:
    whitelist = Whitelist(["10.1.2.3", "192.168.0.0/16", "2001:db8::/32", "Friend.example"])
    for host in ("10.1.2.3", "::ffff:10.1.2.3", "192.168.7.7", "2001:db8:1::5", "friend.example"):
        assert whitelist.allows(host), host
    for host in ("10.1.2.4", "192.169.0.1", "2001:db9::1", "other.example"):
        assert not whitelist.allows(host), host


@pytest.mark.parametrize(
    "entry",
    ["300.0.0.0/8", "10.0.0.0/33", "10.1.2", "10.1.2.3:80", "[::1]", "*.example", "a b", "x/y", ""],
)
def test_a_whitelist_entry_that_is_none_says_what_is_expected(entry: str) -> None:
    with pytest.raises(UsageError, match="is no whitelist entry: expected is an IP address"):
        Whitelist(["10.0.0.1", entry])


@pytest.mark.parametrize("entries", ["10.0.0.1", [b"10.0.0.1"], [5]])
def test_a_whitelist_is_a_list_of_texts(entries: Any) -> None:
    with pytest.raises(TypeError, match="whitelist"):
        Whitelist(entries)


def test_a_ban_of_one_channel_leaves_the_others_alone() -> None:
    bans = Bans()
    bans.add("10.0.0.1", 1, b"a", Reason.APPLICATION)
    assert bans.reason("10.0.0.1", 1, b"a") is Reason.APPLICATION
    assert bans.reason("10.0.0.1", 1, b"b") is None
    bans.add("10.0.0.1", 2, None, Reason.DETECTED_SELF)
    assert bans.reason("10.0.0.1", 2, b"b") is Reason.DETECTED_SELF


def test_the_application_can_lift_its_own_bans_only() -> None:
    bans = Bans()
    bans.add("10.0.0.1", 1, b"a", Reason.APPLICATION)
    bans.add("10.0.0.1", 2, b"a", Reason.DETECTED_SELF)
    assert bans.lift("10.0.0.1", 1, b"a")
    assert not bans.lift("10.0.0.1", 2, b"a")
    assert bans.reason("10.0.0.1", 1, b"a") is None
    assert bans.reason("10.0.0.1", 2, b"a") is Reason.DETECTED_SELF


def test_bans_that_strangers_cause_are_bounded() -> None:
    bans = Bans(limit=10)
    bans.add("10.0.0.1", 1, b"a", Reason.APPLICATION)
    for port in range(100, 200):
        bans.add("10.0.0.2", port, b"a", Reason.DETECTED_SELF)
    assert len(bans) == 11
    assert bans.reason("10.0.0.2", 100, b"a") is None
    assert bans.reason("10.0.0.2", 199, b"a") is Reason.DETECTED_SELF
    assert bans.reason("10.0.0.1", 1, b"a") is Reason.APPLICATION
