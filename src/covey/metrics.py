"""Counters in Prometheus form, read when they are collected. Needs the extra `covey[metrics]`.

`register_wakeup(wakeup)` adds the twelve gauges of `protomux-wakeup` by their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client import Metric

    from covey.wakeup import Wakeup

__all__ = ["WakeupMetrics", "register_wakeup"]

PREFIX: Final = "protomux_wakeup_"
HELP: Final = {
    "sessions_opened": "The amount of sessions opened by protomux wakeup",
    "sessions_closed": "The amount of sessions closed by protomux wakeup",
    "topics_added": "The amount of topics added to protomux wakeup",
    "topics_gcd": "The amount of topics that got garbage collected by protomux wakeup",
    "peers_added": "The amount of peers added by protomux wakeup, across all topics",
    "peers_removed": "The amount of peers removed by protomux wakeup, across all topics",
    "wire_announce_rx": "The amount of wire announce messages received by protomux wakeup",
    "wire_announce_tx": "The amount of wire announce messages transmitted by protomux wakeup",
    "wire_lookup_rx": "The amount of wire lookup messages received by protomux wakeup",
    "wire_lookup_tx": "The amount of wire lookup messages transmitted by protomux wakeup",
    "wire_info_rx": "The amount of wire info messages received by protomux wakeup",
    "wire_info_tx": "The amount of wire info messages transmitted by protomux wakeup",
}
"""The gauges, with the help texts of the reference."""


class WakeupMetrics(Collector):
    """Gives the counters of wakeups as gauges, those of the moment of collection.

    One collector may have several wakeups, told apart by `labels`: each has the same label names.
    `wire_info_tx` is what was sent; the reference gives what was received there.
    """

    def __init__(self, wakeup: Wakeup, *, labels: Mapping[str, str] | None = None) -> None:
        self._names = tuple(labels or ())
        self._sources: list[tuple[Wakeup, tuple[str, ...]]] = []
        self.add(wakeup, labels=labels)

    def add(self, wakeup: Wakeup, *, labels: Mapping[str, str] | None = None) -> None:
        """Give the counters of a further wakeup too.

        `ValueError` for other label names, or for values that another wakeup has.
        """
        given = dict(labels or {})
        if set(given) != set(self._names):
            raise ValueError(f"the labels are {list(self._names)}, not {list(given)}")
        values = tuple(given[name] for name in self._names)
        if any(values == others for _, others in self._sources):
            raise ValueError(f"there is a wakeup with the labels {given} already")
        self._sources.append((wakeup, values))

    def describe(self) -> Iterator[Metric]:
        """The gauges without values, so that a registry knows their names."""
        for name, text in HELP.items():
            yield GaugeMetricFamily(PREFIX + name, text, labels=self._names)

    def collect(self) -> Iterator[Metric]:
        """The gauges, with the values of now."""
        counts = [(wakeup.stats.snapshot(), values) for wakeup, values in self._sources]
        for name, text in HELP.items():
            family = GaugeMetricFamily(PREFIX + name, text, labels=self._names)
            for count, values in counts:
                family.add_metric(values, getattr(count, name))
            yield family


def register_wakeup(
    wakeup: Wakeup,
    registry: CollectorRegistry | None = None,
    *,
    labels: Mapping[str, str] | None = None,
) -> WakeupMetrics:
    """Register the counters of `wakeup` with `registry`, the process-wide one without it.

    The result goes to `registry.unregister` when that is to end; it keeps the wakeup alive until
    then. Several wakeups: give the first one `labels`, and `add` the others to the result.
    `ValueError` when the registry has gauges of these names already.
    """
    metrics = WakeupMetrics(wakeup, labels=labels)
    (REGISTRY if registry is None else registry).register(metrics)
    return metrics
