"""Multicast DNS-discovery without a socket: datagrams and time in, peers and answers out.

One `MulticastNode` asks for topics, answers for those announced here, and hears everybody's
answers, because they go to the whole group. An announcer also says so unasked, in the form of an
answer: the reference takes it, and whoever already looks for the topic learns of it at once.

Source: `dns-discovery.md` sections 6 and 7; dns-discovery 6.2.3, multicast-dns 7.2.5.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from covey.errors import DecodeError, LimitError
from covey.limits import Limits
from covey.wire import dns_discovery as codec
from covey.wire.dns_answers import CLASS_MASK, service_peer, text_values
from covey.wire.dns_messages import (
    CLASS_IN,
    TYPE_A,
    TYPE_SRV,
    TYPE_TXT,
    Message,
    Question,
    Record,
    decode_message,
    encode_message,
)
from covey.wire.rate_limit import RateLimiter
from covey.wire.session import Buffer

LINK_TTL = 255
"""What every router lowers: a datagram that still has it comes from this link."""
ECHO_WAIT = 1.0
"""Seconds in which the echo of an own query must arrive to be taken for one."""
MAX_ECHOES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Where a datagram came from; `ttl` is that of its IP header, None when unknown.

    `local_host` is our own address on the interface it came by, None when unknown.
    """

    host: str
    port: int
    ttl: int | None = None
    local_host: str | None = None


@dataclass(frozen=True, slots=True)
class PeerHeard:
    """Somebody on the link says that `topic` is at `host`:`port`."""

    topic: bytes
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A datagram for the group, to be sent by the interface its question came by, to `port`."""

    data: bytes
    port: int


class MulticastNode:
    """What one socket of the group knows: topics wanted, topics announced, tokens given out.

    `secret` (32 random bytes) makes the tokens by which own answers are recognised; `loopback`
    reports own answers too, as the reference's option does. `port` is that of the group.
    """

    def __init__(
        self,
        *,
        secret: bytes,
        port: int = codec.MULTICAST_PORT,
        domain: str = codec.DEFAULT_DOMAIN,
        loopback: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self.domain = domain
        self.malformed = 0
        """Datagrams that are no DNS message."""
        self.dropped = 0
        """Datagrams not looked at because their host sends too many."""
        self.refused = 0
        """Answers held back because somebody asks too often."""
        self._limits = limits or Limits()
        self._secret = secret
        self._port = port
        self._loopback = loopback
        self._announced: dict[bytes, dict[int, None]] = {}
        self._records = 0
        self._wanted: set[bytes] = set()
        self._tokens: OrderedDict[str, None] = OrderedDict()
        self._echoes: dict[tuple[bytes, str], tuple[int, float]] = {}
        self._answer: Answer | None = None
        self._heard = RateLimiter(
            rate=self._limits.dns_datagrams_per_second,
            burst=self._limits.dns_datagram_burst,
            sources=self._limits.max_dns_sources,
        )
        self._rate = RateLimiter(
            rate=self._limits.dns_answers_per_second,
            burst=self._limits.dns_answer_burst,
            sources=self._limits.max_dns_sources,
        )

    # What the caller wants

    def announce(self, topic: bytes, port: int) -> None:
        """Answer for `topic` with `port` from now on; raises `LimitError` above max_dns_records."""
        ports = self._announced.get(topic, {})
        if port in ports:
            return
        if self._records >= self._limits.max_dns_records:
            raise LimitError(
                f"already {self._records} announces",
                limit="max_dns_records",
                allowed=self._limits.max_dns_records,
            )
        self._announced[topic] = ports | {port: None}
        self._records += 1

    def unannounce(self, topic: bytes, port: int) -> None:
        """Answer with `port` no longer; nothing is sent, and nothing is wrong if it was not."""
        ports = self._announced.get(topic, {})
        if port not in ports:
            return
        del ports[port]
        self._records -= 1
        if not ports:
            del self._announced[topic]

    def want(self, topic: bytes) -> None:
        """Report peers of `topic` from now on."""
        self._wanted.add(topic)

    def forget(self, topic: bytes) -> None:
        """Report peers of `topic` no longer."""
        self._wanted.discard(topic)

    def ask(self, topic: bytes, *, local_host: str, now: float) -> list[bytes]:
        """The datagrams of one round on the interface with `local_host`: query, own announce.

        The announce follows in one datagram when ports are announced for the topic. The echo of
        the query, which comes from `local_host`, is then not answered once more.
        """
        name = codec.name_of_topic(topic, self.domain)
        out = [encode_message(codec.multicast_query(name))]
        if topic in self._announced:
            question = Question(name)
            record = self._peers_record(topic, name, local_host)
            out.append(encode_message(codec.multicast_response((question,), (record,))))
            self._expect_echo(topic, local_host, now)
        return out

    # What the group says

    def receive_datagram(self, data: Buffer, arrival: Arrival, now: float) -> list[PeerHeard]:
        """Peers told by one datagram; never raises. What is to be answered is in `take_answer`.

        Undecodable datagrams are counted in `malformed` and otherwise ignored, those of a host
        that sends too many in `dropped`.
        """
        if not self._heard.take(arrival.host, now):
            self.dropped += 1
            return []
        try:
            message = decode_message(data)
        except DecodeError:
            self.malformed += 1
            return []
        if message.response:
            return self._peers_of(message, arrival)
        self._answer_to(message, arrival, now)  # peers in a query would be anybody's claim
        return []

    def take_answer(self) -> Answer | None:
        """The answer to the datagram received last, once."""
        answer, self._answer = self._answer, None
        return answer

    def _peers_of(self, message: Message, arrival: Arrival) -> list[PeerHeard]:
        heard: dict[PeerHeard, None] = {}
        for record in message.answers + message.additionals:
            topic = codec.topic_of_name(record.name, self.domain)
            if topic is None or topic not in self._wanted:
                continue
            for host, port in self._peers_in(record, arrival):
                if len(heard) >= self._limits.max_dns_peers:
                    return list(heard)
                heard[PeerHeard(topic, host, port)] = None
        return list(heard)

    def _peers_in(self, record: Record, arrival: Arrival) -> list[codec.Peer]:
        if record.type == TYPE_SRV:
            # It carries no token, so it must at least come from this link.
            peer = service_peer(record, arrival.host) if arrival.ttl == LINK_TTL else None
            return [] if peer is None else [peer]
        values = text_values(record) or {}
        if self._is_own(values.get("token"), arrival.host) and not self._loopback:
            return []
        heard = codec.decode_peers(values.get("peers"), arrival.host)
        return [peer for peer in heard if codec.is_dialable(*peer)]

    def _is_own(self, token: object, sender: str) -> bool:
        """Whether we wrote this token: one given out lately, or the one for the sender itself.

        The reference only looks at the second, and so takes its own answers to other hosts for
        those of a peer.
        """
        return token in self._tokens or token == codec.token_for(self._secret, sender)

    def _answer_to(self, query: Message, arrival: Arrival, now: float) -> None:
        known = list(self._known_questions(query))
        if not known or self._is_echo(query, known, arrival, now):
            return
        if not self._rate.take(arrival.host, now):
            self.refused += 1
            return
        records = [
            record
            for topic, question in known
            for record in self._records_for(topic, question, arrival)
        ]
        if records:
            questions = (question for _, question in known)
            message = codec.multicast_response(questions, records)
            self._answer = Answer(encode_message(message), arrival.port)

    def _known_questions(self, query: Message) -> Iterator[tuple[bytes, Question]]:
        for question in dict.fromkeys(query.questions):
            topic = codec.topic_of_name(question.name, self.domain)
            if topic in self._announced and question.record_class & CLASS_MASK == CLASS_IN:
                yield topic, question

    def _records_for(self, topic: bytes, question: Question, arrival: Arrival) -> list[Record]:
        name = question.name
        if question.type == TYPE_TXT:
            return [self._peers_record(topic, name, arrival.host)]
        if question.type == TYPE_SRV:
            ports = list(self._announced[topic])[:10]
            return [codec.service_answer(name, (codec.ANY_HOST, port)) for port in ports]
        if question.type == TYPE_A and arrival.local_host is not None:
            return [codec.address_answer(name, arrival.local_host)]
        return []

    def _peers_record(self, topic: bytes, name: str, asker: str) -> Record:
        token = codec.token_for(self._secret, asker)
        self._tokens[token] = None
        self._tokens.move_to_end(token)
        if len(self._tokens) > self._limits.max_dns_sources:
            self._tokens.popitem(last=False)
        # more may be heard in one datagram than one of our answers can tell
        most = min(self._limits.max_dns_peers, codec.MAX_PEERS)
        ports = list(self._announced[topic])[:most]
        peers = [(codec.ANY_HOST, port) for port in ports]
        return codec.peers_answer(name, token, peers)

    # The echo of our own queries

    def _expect_echo(self, topic: bytes, local_host: str, now: float) -> None:
        if len(self._echoes) >= MAX_ECHOES:
            self._echoes = {key: due for key, due in self._echoes.items() if due[1] > now}
        if len(self._echoes) < MAX_ECHOES:
            count, until = self._echoes.get((topic, local_host), (0, 0.0))
            self._echoes[topic, local_host] = (count + 1 if until > now else 1, now + ECHO_WAIT)

    def _is_echo(
        self, query: Message, known: list[tuple[bytes, Question]], arrival: Arrival, now: float
    ) -> bool:
        """Whether the query is one of ours, whose answer the group already has.

        Another process here may have asked the same from the same address and port in this very
        moment. Then ours is still to come and is answered instead: to the group, just as well.
        """
        if len(query.questions) != 1 or arrival.port != self._port:
            return False
        topic, question = known[0]
        count, until = self._echoes.pop((topic, arrival.host), (0, 0.0))
        if question.type != TYPE_TXT or until <= now:
            return False
        if count > 1:
            self._echoes[topic, arrival.host] = (count - 1, until)
        return True
