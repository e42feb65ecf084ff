"""The network of the commands for logs: a networker that looks where the options say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from covey.cli.flock_options import FlockOptions, OpenFlock, open_flock, report_discovery
from covey.cli.narrator import Brief, narrate, tell_staging
from covey.cli.output import Output
from covey.cli.runtime import let_end, start_telling

if TYPE_CHECKING:
    from covey.networker.events import NetworkerEvent
    from covey.networker.networker import Networker
    from covey.store.basestore import Basestore
    from covey.store.feed import Feed


class LogNetwork:
    """Joins the topics of logs, and tells who comes; made by `open_network`."""

    def __init__(self, networker: Networker, opened: OpenFlock, output: Output) -> None:
        self._networker = networker
        self._opened = opened
        self._output = output
        self._tellers: list[asyncio.Task[None]] = []
        self._named = False
        self.brief = Brief()
        self.listening = ("", 0)

    @property
    def peers(self) -> int:
        """How many peers are connected, whatever they have."""
        return len(self._networker.peers)

    async def listen_on(self) -> None:
        """Accept connections where the options say."""
        self.listening = await self._networker.listen_on(port=self._opened.port)

    async def join(self, feed: Feed) -> None:
        """Announce `feed` under its discovery key and look for those who have it."""
        name = feed.discovery_key
        await self._networker.configure(name, flush=False)
        if not self._named:  # one connection carries every log
            self._named = True
            self._opened.named.seek(name)
        topic = await self._opened.flock.join(name)
        work = report_discovery(topic, self._output)
        self._tellers.append(start_telling(work, "covey log round"))

    def tell(self) -> None:
        """Tell what the flock does, from now on."""
        flock, output = self._opened.flock, self._output
        self._tellers += (
            start_telling(narrate(flock.listen(), output, brief=self.brief), "covey log tell"),
            start_telling(
                tell_staging(flock.staging.listen(), output, brief=True), "covey log tell"
            ),
        )
        self._networker.subscribe(self._hear)

    async def told(self) -> None:
        """Everything is closed: let the last of it be told."""
        await let_end(*self._tellers)

    def _hear(self, event: NetworkerEvent) -> None:
        if event.type == "replication-error":
            text = f"the exchange with a peer failed: {event.error}"
            self._output.event(event.type, text, error=event.error)


@asynccontextmanager
async def open_network(
    store: Basestore, options: FlockOptions, output: Output, *, tell: bool = True
) -> AsyncIterator[LogNetwork]:
    """Exchange the logs of `store` with whoever is found for those that are joined.

    `tell`: each event of the network is told, for people what matters to them.
    """
    from covey.networker.networker import Networker

    network: LogNetwork | None = None
    try:
        async with (
            open_flock(options, None) as opened,
            Networker(store, flock=opened.flock) as networker,
        ):
            network = LogNetwork(networker, opened, output)
            network.brief = Brief(own_key=options.key_file is not None)
            if tell:
                network.tell()
            await network.listen_on()
            yield network
    finally:
        if network is not None:
            await network.told()
