"""The networks that limits per remote host count by."""

from __future__ import annotations

import pytest

from covey.peer_type import network_of


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%lo", "fe80::/64%lo"),
        ("::1", "::1"),
        ("a name", "a name"),
        ("", ""),
    ],
)
def test_network_of_counts_ipv6_by_64_and_everything_else_by_itself(
    host: str, network: str
) -> None:
    assert network_of(host) == network
