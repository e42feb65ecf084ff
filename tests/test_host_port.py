from __future__ import annotations

import ipaddress
from contextlib import nullcontext
from typing import Any

import pytest

from covey.errors import UsageError
from covey.host_port import check_port, is_port, parse_ip, show, unmapped


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("10.0.0.1", "10.0.0.1:80"),
        ("peer.example", "peer.example:80"),
        ("::1", "[::1]:80"),
        ("fe80::1%eth0", "[fe80::1%eth0]:80"),
    ],
)
def test_an_ipv6_host_is_shown_in_brackets(host: str, shown: str) -> None:
    assert show(host, 80) == shown


@pytest.mark.parametrize(
    ("host", "bare"),
    [
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::FFFF:a00:1", "10.0.0.1"),
        ("0:0:0:0:0:ffff:10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "::1"),
        ("::ffff:1", "::ffff:1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("2001:DB8::1", "2001:DB8::1"),
        ("peer.example", "peer.example"),
        ("::ffff:peer.example", "::ffff:peer.example"),
        ("", ""),
    ],
)
def test_ipv4_comes_out_of_its_ipv6_clothes_and_the_rest_stays(host: str, bare: str) -> None:
    assert unmapped(host) == bare


def test_an_ip_address_is_told_from_a_name() -> None:
    assert parse_ip("::ffff:10.0.0.1") == ipaddress.IPv4Address("10.0.0.1")
    assert parse_ip("fe80::1%eth0") == ipaddress.IPv6Address("fe80::1%eth0")
    for name in ("peer.example", "010.0.0.1", "10.1", "[::1]", ""):
        assert parse_ip(name) is None


@pytest.mark.parametrize(
    ("port", "dialled", "listened"),
    [
        (-1, False, False),
        (0, False, True),
        (1, True, True),
        (65535, True, True),
        (65536, False, False),
    ],
)
def test_a_port_to_dial_is_from_1_on_one_to_listen_at_may_be_any(
    port: int, dialled: bool, listened: bool
) -> None:
    for or_any, fine in ((False, dialled), (True, listened)):
        assert is_port(port, or_any=or_any) is fine
        with nullcontext() if fine else pytest.raises(UsageError, match="to 65535, not"):
            check_port(port, or_any=or_any)


@pytest.mark.parametrize("port", ["80", True, 1.5, None])
def test_what_is_no_number_is_no_port(port: Any) -> None:
    with pytest.raises(TypeError, match="a port is a number"):
        check_port(port)
