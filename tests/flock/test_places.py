from __future__ import annotations

from typing import Any

import pytest

from covey.address import Address, encode_key
from covey.errors import AddressError, UsageError
from covey.flock.flock import Flock
from covey.flock.places import place_of
from tests.flock.support import quiet_flock

KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("given", "place"),
    [
        (80, ("127.0.0.1", 80, None)),
        (("h", 80), ("h", 80, None)),
        (["h", 80], ("h", 80, None)),
        ("net:h:80~noise", ("h", 80, None)),
        (Address.net("h", 80, key=KEY), ("h", 80, KEY)),
        (Address.parse("net:h:80"), ("h", 80, None)),
    ],
)
def test_a_place_has_many_forms(given: Any, place: Any) -> None:
    assert place_of(given) == place


@pytest.mark.parametrize(
    ("given", "error", "expected"),
    [
        (("h",), UsageError, "host, port"),
        (("h", 1, 2), UsageError, "host, port"),
        (b"x", TypeError, "host, port"),
        (3.4, TypeError, "host, port"),
        (None, TypeError, "host, port"),
        (True, TypeError, "host, port"),
        (("127.0.0.1", "80"), TypeError, "a port a number"),
        (("127.0.0.1", True), TypeError, "a port a number"),
        ((b"h", 80), TypeError, "a host is text"),
        ("h:80", AddressError, "not a multiserver address"),
        ("dht:x~noise", AddressError, "cannot be dialled"),
        ("net:h~noise", AddressError, "cannot be dialled"),
    ],
)
async def test_what_is_no_place_is_refused_with_what_is_expected(
    given: Any, error: type[Exception], expected: str
) -> None:
    async with quiet_flock() as (flock, events):
        for call in (flock.add_peer, flock.remove_peer):
            with pytest.raises(error, match=expected):
                call("x", given)
        assert (flock.queued, events.types) == (0, [])


ENCODED = encode_key(KEY)
OTHER_DEMANDS = (
    "net:h:80",
    "net:h:80~noise:AAAA",
    "net:h:80~noise:",
    f"net:h:80~noise:{ENCODED[:-1]}",
    f"net:h:80~noise:{ENCODED}:more",
    f"net:h:80~shs:{ENCODED}",
    "net:h:80~plain",
    "net:h:80~noise~gzip",
    "utp:h:80~noise",
    "ws://h:80~noise",
)
"""What a flock with the noise handshake cannot dial as it stands."""


@pytest.mark.parametrize("text", OTHER_DEMANDS)
async def test_an_address_is_not_dialled_in_another_way_than_it_says(text: str) -> None:
    async with quiet_flock() as (flock, events):
        for address in (text, Address.parse(text)):
            for call in (flock.add_peer, flock.remove_peer):
                with pytest.raises(AddressError):
                    call("x", address)
        assert (flock.queued, events.types) == (0, [])


@pytest.mark.parametrize(
    "text", ["net:h:80~noise", "net:h:80~plain:x", f"net:h:80~noise:{ENCODED}"]
)
async def test_a_flock_with_the_plain_handshake_takes_its_own_addresses_alone(text: str) -> None:
    async with quiet_flock(handshake="plain", max_connections=1) as (flock, _):
        with pytest.raises(AddressError):
            flock.add_peer("x", text)
        assert flock.add_peer("x", "net:127.0.0.1:1~plain")


def test_of_several_alternatives_the_one_that_can_be_dialled_counts() -> None:
    text = f"ws:h:1~noise;net:h:80~shs:{ENCODED};net:h:81~noise:{ENCODED};net:h:82~noise"
    assert place_of(text, "noise") == ("h", 81, KEY)


@pytest.mark.parametrize(
    ("options", "error", "expected"),
    [
        ({"max_connections": -1}, UsageError, "max_connections"),
        ({"max_connections": 1.5}, TypeError, "max_connections"),
        ({"id": b"", "handshake": "plain"}, UsageError, "1 to 64 bytes"),
        ({"id": bytes(65), "handshake": "plain"}, UsageError, "1 to 64 bytes"),
        ({"id": 5}, TypeError, "an id is bytes"),
        ({"id": "x"}, TypeError, "an id is bytes"),
        ({"public_sources": "dns"}, TypeError, "public_sources"),
        ({"public_sources": b"dns"}, TypeError, "public_sources"),
        ({"public_sources": 5}, TypeError, "public_sources"),
        ({"public_sources": [b"dns"]}, TypeError, "public_sources"),
        ({"limits": 5}, TypeError, "limits"),
        ({"limits": 0}, TypeError, "limits"),
        ({"host": 5}, TypeError, "host"),
        ({"handshake": 5}, TypeError, "handshake"),
    ],
)
async def test_options_that_cannot_work_are_refused_at_once(
    options: dict[str, Any], error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        Flock(discovery=False, **options)


async def test_ids_of_one_and_of_64_bytes_are_fine() -> None:
    for size in (1, 64):
        async with quiet_flock(id=bytes(size), handshake="plain") as (flock, _):
            assert flock.id == bytes(size)
