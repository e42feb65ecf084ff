from __future__ import annotations

import ipaddress

import pytest

from covey.host_port import parse_ip, show, unmapped


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
