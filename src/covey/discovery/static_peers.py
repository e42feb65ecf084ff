"""A source that is told its peers: addresses known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from covey.discovery.names import Name, name_bytes
from covey.discovery.source import Report, Timing, Wanted
from covey.errors import UsageError
from covey.host_port import HostPort, is_port, show

Peers: TypeAlias = Iterable[HostPort]


class StaticPeers:
    """Peers given by the caller: `{name: [(host, port)]}`, or one list for every name.

    Each round reports them again. A host may be a name or an address of any kind.
    """

    name = "static"

    def __init__(
        self,
        peers: Mapping[bytes, Peers] | Mapping[str, Peers] | Mapping[Name, Peers] | Peers = (),
        *,
        timing: Timing | None = None,
    ) -> None:
        self.timing = timing or Timing()
        self._report: Report | None = None
        self._everywhere: list[HostPort] = []
        self._of_name: dict[bytes, list[HostPort]] = {}
        if isinstance(peers, Mapping):
            for name, some in peers.items():
                key = name_bytes(name)
                self._of_name.setdefault(key, []).extend(map(_checked, some))
        else:
            self._everywhere.extend(map(_checked, peers))

    def __repr__(self) -> str:
        named = sum(map(len, self._of_name.values()))
        told = f"{len(self._everywhere)} for every name, {named} for {len(self._of_name)} names"
        return f"<StaticPeers {told}>"

    async def open(self, report: Report) -> None:
        """Report to `report` from now on."""
        self._report = report

    async def round(self, wanted: Wanted) -> None:
        """Report the peers of this name and those of every name."""
        for host, port in self._of_name.get(wanted.name, []) + self._everywhere:
            if self._report is not None:
                self._report(wanted.hash, host, port)

    def leave(self, wanted: Wanted) -> None:
        """Nothing was announced."""

    async def close(self) -> None:
        """Report nothing more."""
        self._report = None


def _checked(peer: HostPort) -> HostPort:
    host, port = peer
    if not host or not is_port(port):
        raise UsageError(f"{show(host, port)} is not a host and a port from 1 to 65535")
    return host, port
