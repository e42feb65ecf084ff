"""The candidates of each topic, bounded, and the queue from which they are dialled. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from covey.flock.policy import Reason


class CandidateState(StrEnum):
    """Where a candidate stands."""

    IDLE = "idle"
    """Known, nothing planned: found again it is tried again."""
    QUEUED = "queued"
    CONNECTING = "connecting"
    WAITING = "waiting"
    """A retry is planned at `Candidate.due`."""
    CONNECTED = "connected"
    """Its peer is connected, by this address or another."""


ACTIVE = frozenset({CandidateState.CONNECTING, CandidateState.CONNECTED})


@dataclass(slots=True, eq=False)
class Candidate:
    """One host:port found for one topic. `retries` counts failures in a row, `due` is seconds.

    `last` tells in words what happened to it last. `key` is the one that the remote must prove,
    where the application named it; `proven` the one that the connection which serves it proved.
    `left`: its topic was left, only its connection goes on.
    """

    host: str
    port: int
    name: bytes
    source: str
    state: CandidateState = CandidateState.IDLE
    retries: int = 0
    due: float | None = None
    last: str = ""
    key: bytes | None = None
    proven: bytes | None = None
    left: bool = False

    def suits(self, key: bytes | None) -> bool:
        """Whether a connection to its place that proved `key` is one that it may be served by."""
        return self.key is None or self.key == key

    @property
    def pending(self) -> bool:
        """Whether finding it again changes nothing."""
        return self.state is not CandidateState.IDLE


class CandidateTable:
    """Candidates by topic: at most `per_topic` each, and `ports_per_host` ports of one host.

    A new one pushes out the topic's least recently found that is neither connected nor being
    connected. `add` returns what was pushed out, so that the caller can cancel its plans.
    """

    def __init__(self, *, per_topic: int, ports_per_host: int) -> None:
        self._per_topic = per_topic
        self._ports_per_host = ports_per_host
        self._topics: dict[bytes, OrderedDict[tuple[str, int], Candidate]] = {}
        self._ports: dict[tuple[bytes, str], int] = {}

    def __iter__(self) -> Iterator[Candidate]:
        for topic in tuple(self._topics.values()):
            yield from tuple(topic.values())

    def __len__(self) -> int:
        return sum(len(topic) for topic in self._topics.values())

    def get(self, name: bytes, host: str, port: int) -> Candidate | None:
        """The candidate of that topic and address; it counts as found just now."""
        topic = self._topics.get(name)
        candidate = topic.get((host, port)) if topic else None
        if topic and candidate:
            topic.move_to_end((host, port))
        return candidate

    def at(self, host: str, port: int) -> list[Candidate]:
        """The candidates of all topics with that address."""
        return [found for topic in self._topics.values() if (found := topic.get((host, port)))]

    def of(self, name: bytes) -> list[Candidate]:
        """The candidates of one topic, least recently found first."""
        return list(self._topics.get(name, {}).values())

    def refusal(self, name: bytes, host: str) -> Reason | None:
        """Why no further port of `host` is taken into the topic, or None."""
        if self._ports.get((name, host), 0) >= self._ports_per_host:
            return Reason.TOO_MANY_PORTS
        if len(self._topics.get(name, ())) >= self._per_topic and self._oldest(name) is None:
            return Reason.TOO_MANY_CANDIDATES
        return None

    def add(self, candidate: Candidate) -> Candidate | None:
        """Take in a new candidate that `refusal` let pass; returns the one pushed out, if any."""
        name, host, port = candidate.name, candidate.host, candidate.port
        topic = self._topics.setdefault(name, OrderedDict())
        pushed = self._oldest(name) if len(topic) >= self._per_topic else None
        if pushed is not None:
            self.remove(pushed)
        self._topics.setdefault(name, topic)[host, port] = candidate
        self._ports[name, host] = self._ports.get((name, host), 0) + 1
        return pushed

    def remove(self, candidate: Candidate) -> None:
        """Forget a candidate. May be called again."""
        name, host = candidate.name, candidate.host
        topic = self._topics.get(name, OrderedDict())
        if topic.get((host, candidate.port)) is not candidate:
            return
        del topic[host, candidate.port]
        self._ports[name, host] -= 1
        if not self._ports[name, host]:
            del self._ports[name, host]
        if not topic:
            del self._topics[name]

    def knows(self, candidate: Candidate) -> bool:
        """Whether it was neither removed nor pushed out."""
        topic = self._topics.get(candidate.name)
        return topic is not None and topic.get((candidate.host, candidate.port)) is candidate

    def _oldest(self, name: bytes) -> Candidate | None:
        """The one that a new candidate may push out."""
        known = self._topics.get(name)
        return (
            next((one for one in known.values() if one.state not in ACTIVE), None)
            if known
            else None
        )


@dataclass(slots=True)
class DialQueue:
    """Who is dialled next: the topics take turns, within a topic the first found goes first.

    Taking turns keeps a flood of forged candidates in one topic from starving the others.
    """

    _topics: OrderedDict[bytes, OrderedDict[Candidate, None]] = field(default_factory=OrderedDict)
    _length: int = 0

    def __len__(self) -> int:
        return self._length

    def push(self, candidate: Candidate) -> None:
        """Queue a candidate; one that waits already keeps its place."""
        topic = self._topics.setdefault(candidate.name, OrderedDict())
        if candidate not in topic:
            topic[candidate] = None
            self._length += 1

    def remove(self, candidate: Candidate) -> bool:
        """Take a candidate out of the queue; False when it was not in it."""
        topic = self._topics.get(candidate.name)
        if topic is None or candidate not in topic:
            return False
        del topic[candidate]
        self._length -= 1
        if not topic:
            del self._topics[candidate.name]
        return True

    def pop(self) -> Candidate | None:
        """The next one to dial, or None when nobody waits."""
        if not self._topics:
            return None
        name, topic = next(iter(self._topics.items()))
        candidate = next(iter(topic))
        self.remove(candidate)
        if name in self._topics:
            self._topics.move_to_end(name)
        return candidate
