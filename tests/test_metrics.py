"""The gauges of a wakeup, as a Prometheus client reads them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from covey.metrics import register_wakeup
from covey.wakeup import Wakeup
from tests.wakeup_sides import CAPABILITY, HEAD, OTHER, two_sides
from tests.wakeup_streams import settle

NAMES = [
    *("sessions_opened", "sessions_closed", "topics_added", "topics_gcd"),
    *("peers_added", "peers_removed", "wire_announce_rx", "wire_announce_tx"),
    *("wire_lookup_rx", "wire_lookup_tx", "wire_info_rx", "wire_info_tx"),
]


def values(registry: CollectorRegistry, **labels: str) -> dict[str, float | None]:
    return {
        name: registry.get_sample_value(f"protomux_wakeup_{name}", labels or None) for name in NAMES
    }


async def test_the_twelve_gauges_are_there_and_zero() -> None:
    registry = CollectorRegistry()
    async with Wakeup() as wakeup:
        register_wakeup(wakeup, registry)
        assert values(registry) == dict.fromkeys(NAMES, 0.0)
        text = generate_latest(registry).decode()
        assert text.count("# TYPE protomux_wakeup_") == text.count(" gauge\n") == 12


async def test_values_are_those_of_the_moment_of_collection() -> None:
    registry = CollectorRegistry()
    async with two_sides() as sides:
        register_wakeup(sides.left, registry)
        session, other = sides.left.session(CAPABILITY), sides.left.session(OTHER)
        theirs = sides.right.session(CAPABILITY)
        sides.join()
        await settle()
        for _ in range(2):
            session.broadcast_lookup()
        for _ in range(3):
            session.broadcast_announce([HEAD])
        for _ in range(4):
            theirs.broadcast_lookup()
        for _ in range(5):
            theirs.broadcast_announce([HEAD])
        session.inactive()
        for _ in range(3):
            theirs.inactive()
            theirs.active()
        await settle()
        other.destroy()
        for _ in range(5):
            sides.left._machine.gc_step()
        assert values(registry) == {
            "sessions_opened": 2,
            "sessions_closed": 1,
            "topics_added": 2,
            "topics_gcd": 1,
            "peers_added": 2,
            "peers_removed": 1,
            "wire_announce_rx": 5,
            "wire_announce_tx": 3,
            "wire_lookup_rx": 4,
            "wire_lookup_tx": 2,
            "wire_info_rx": 6,
            "wire_info_tx": 1,
        }


async def test_several_wakeups_are_told_apart_by_labels() -> None:
    registry = CollectorRegistry()
    async with Wakeup() as first, Wakeup() as second:
        metrics = register_wakeup(first, registry, labels={"side": "a"})
        metrics.add(second, labels={"side": "b"})
        second.session(CAPABILITY)
        assert values(registry, side="a")["sessions_opened"] == 0
        assert values(registry, side="b")["sessions_opened"] == 1
        with pytest.raises(ValueError, match="already"):
            metrics.add(Wakeup(), labels={"side": "b"})
        with pytest.raises(ValueError, match="labels"):
            metrics.add(Wakeup(), labels={"other": "b"})


async def test_a_registry_takes_one_and_lets_it_go() -> None:
    async with Wakeup() as wakeup:
        metrics = register_wakeup(wakeup)
        try:
            with pytest.raises(ValueError, match="Duplicated"):
                register_wakeup(wakeup)
            assert REGISTRY.get_sample_value("protomux_wakeup_topics_added") == 0
        finally:
            REGISTRY.unregister(metrics)
        assert REGISTRY.get_sample_value("protomux_wakeup_topics_added") is None


def test_a_program_without_metrics_does_not_load_the_client() -> None:
    check = "import sys, covey.wakeup, covey.networker; print('prometheus_client' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.stdout, done.stderr) == ("False\n", "")
