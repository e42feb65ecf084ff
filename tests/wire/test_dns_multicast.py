from __future__ import annotations

from dataclasses import replace

import pytest

from covey.errors import LimitError
from covey.limits import Limits
from covey.wire import dns_discovery as codec
from covey.wire.dns_messages import (
    TYPE_A,
    TYPE_SRV,
    TYPE_TXT,
    Message,
    Question,
    Record,
    Service,
    decode_message,
    encode_message,
)
from covey.wire.dns_multicast import Answer, Arrival, MulticastNode, PeerHeard

TOPIC = bytes(range(20))
OTHER = bytes(20)
NAME = codec.name_of_topic(TOPIC)
HERE = "192.0.2.1"
THERE = Arrival(host="192.0.2.9", port=5353, ttl=255, local_host=HERE)
ECHO = Arrival(host=HERE, port=5353, ttl=255, local_host=HERE)


def node(*, seed: int = 1, loopback: bool = False, limits: Limits | None = None) -> MulticastNode:
    return MulticastNode(secret=bytes([seed]) * 32, loopback=loopback, limits=limits)


def seeker() -> MulticastNode:
    seeking = node(seed=2)
    seeking.want(TOPIC)
    return seeking


def query(name: str = NAME, record_type: int = TYPE_TXT) -> bytes:
    return encode_message(Message(questions=(Question(name, record_type),)))


def response(*records: Record) -> bytes:
    return encode_message(codec.multicast_response((), records))


def answer_of(asked: MulticastNode, data: bytes, arrival: Arrival = THERE) -> Answer | None:
    assert asked.receive_datagram(data, arrival, 0.0) == []
    return asked.take_answer()


def peers_in(data: bytes) -> object:
    return codec.read_text(decode_message(data).answers[0].data).get("peers")  # type: ignore[arg-type]


def heard(data: bytes, arrival: Arrival = THERE) -> list[tuple[str, int]]:
    return [(peer.host, peer.port) for peer in seeker().receive_datagram(data, arrival, 0.0)]


# Asking and answering


def test_a_query_is_one_question_with_id_0_and_nothing_else() -> None:
    (data,) = node().ask(TOPIC, local_host=HERE, now=0.0)
    assert data == bytes.fromhex("00000000000100000000000028") + NAME[:40].encode() + (
        b"\x0ddns-discovery\x05local\x00\x00\x10\x00\x01"
    )


def test_a_question_for_an_announced_topic_is_answered_with_the_port_to_the_port_it_came_from() -> (
    None
):
    announcer = node()
    announcer.announce(TOPIC, 3282)
    asker = replace(THERE, port=40000)
    answer = answer_of(announcer, query(), asker)
    assert answer is not None
    assert answer.port == 40000
    token = codec.token_for(bytes([1]) * 32, asker.host)
    assert decode_message(answer.data) == Message(
        response=True,
        flags=0x0400,
        questions=(Question(NAME),),
        answers=(codec.peers_answer(NAME, token, [("0.0.0.0", 3282)]),),
    )
    assert announcer.take_answer() is None


def test_nothing_known_nothing_answered() -> None:
    assert answer_of(node(), query()) is None
    announcer = node()
    announcer.announce(OTHER, 1)
    assert answer_of(announcer, query()) is None
    assert answer_of(announcer, query(codec.DEFAULT_DOMAIN)) is None


def test_a_question_in_upper_case_is_answered_under_the_name_asked_for() -> None:
    announcer = node()
    announcer.announce(TOPIC, 3282)
    answer = answer_of(announcer, query(NAME.upper()))
    assert answer is not None
    assert decode_message(answer.data).answers[0].name == NAME.upper()


def test_two_peers_hear_of_each_other_when_the_second_comes() -> None:
    first, second = node(seed=1), node(seed=2)
    for peer, port in ((first, 1001), (second, 1002)):
        peer.want(TOPIC)
        peer.announce(TOPIC, port)
    asked, announced = second.ask(TOPIC, local_host=THERE.host, now=0.0)
    assert first.receive_datagram(asked, THERE, 0.0) == []
    answer = first.take_answer()
    assert answer is not None
    from_first = replace(THERE, host=HERE)
    assert second.receive_datagram(answer.data, from_first, 0.0) == [PeerHeard(TOPIC, HERE, 1001)]
    assert first.receive_datagram(announced, THERE, 0.0) == [PeerHeard(TOPIC, THERE.host, 1002)]


def test_who_only_looks_up_announces_nothing() -> None:
    assert len(seeker().ask(TOPIC, local_host=HERE, now=0.0)) == 1
    assert answer_of(seeker(), query()) is None


def test_all_ports_of_a_topic_are_told_until_withdrawn() -> None:
    announcer = node()
    announcer.announce(TOPIC, 1)
    announcer.announce(TOPIC, 2)
    announcer.announce(TOPIC, 2)
    answer = answer_of(announcer, query())
    assert answer is not None
    assert codec.decode_peers(peers_in(answer.data)) == [("0.0.0.0", 1), ("0.0.0.0", 2)]
    announcer.unannounce(TOPIC, 1)
    announcer.unannounce(TOPIC, 7)
    answer = answer_of(announcer, query())
    assert answer is not None
    assert codec.decode_peers(peers_in(answer.data)) == [("0.0.0.0", 2)]
    announcer.unannounce(TOPIC, 2)
    assert answer_of(announcer, query()) is None


def test_service_and_address_questions_are_answered_for_announced_topics() -> None:
    announcer = node()
    announcer.announce(TOPIC, 3282)
    service = answer_of(announcer, query(record_type=TYPE_SRV))
    assert service is not None
    assert decode_message(service.data).answers[0].data == Service(3282, "0.0.0.0")
    assert heard(service.data) == [(THERE.host, 3282)]
    address = answer_of(announcer, query(record_type=TYPE_A))
    assert address is not None
    assert decode_message(address.data).answers[0].data == HERE
    assert answer_of(announcer, query(record_type=12)) is None


def test_only_the_questions_that_are_ours_are_copied_into_the_answer_once() -> None:
    announcer = node()
    announcer.announce(TOPIC, 3282)
    names = ["_ipp._tcp.local", NAME, NAME, *(f"x{number}.local" for number in range(200))]
    data = encode_message(Message(questions=tuple(Question(name) for name in names)))
    answer = answer_of(announcer, data)
    assert answer is not None
    assert decode_message(answer.data).questions == (Question(NAME),)
    assert len(decode_message(answer.data).answers) == 1


def test_a_wish_for_a_unicast_answer_is_still_a_question() -> None:
    announcer = node()
    announcer.announce(TOPIC, 3282)
    wish = Message(questions=(Question(NAME, record_class=0x8001),))
    assert answer_of(announcer, encode_message(wish)) is not None
    chaos = Message(questions=(Question(NAME, record_class=3),))
    assert answer_of(announcer, encode_message(chaos)) is None


# Own echo


def test_the_echo_of_an_own_query_is_not_answered_but_the_next_one_from_here_is() -> None:
    announcer = node()
    announcer.announce(TOPIC, 3282)
    asked, announced = announcer.ask(TOPIC, local_host=HERE, now=0.0)
    assert answer_of(announcer, asked, ECHO) is None
    assert answer_of(announcer, asked, ECHO) is not None  # another process of this host
    announcer.want(TOPIC)
    assert announcer.receive_datagram(announced, ECHO, 0.0) == []


def test_an_echo_that_does_not_come_in_time_is_not_waited_for() -> None:
    announcer = node()
    announcer.announce(TOPIC, 3282)
    asked, _ = announcer.ask(TOPIC, local_host=HERE, now=0.0)
    assert announcer.receive_datagram(asked, ECHO, 5.0) == []
    assert announcer.take_answer() is not None


def test_a_query_from_another_host_or_port_is_no_echo() -> None:
    announcer = node()
    announcer.announce(TOPIC, 3282)
    announcer.ask(TOPIC, local_host=HERE, now=0.0)
    assert answer_of(announcer, query(), THERE) is not None
    assert answer_of(announcer, query(), replace(ECHO, port=40000)) is not None


def test_own_answers_to_other_hosts_are_known_by_their_token() -> None:
    """The reference takes them for those of a peer: its token is for the asker's address."""
    announcer = node()
    announcer.announce(TOPIC, 3282)
    announcer.want(TOPIC)
    answer = answer_of(announcer, query(), THERE)
    assert answer is not None
    assert announcer.receive_datagram(answer.data, ECHO, 0.0) == []


def test_own_tokens_are_remembered_in_bounds_and_the_one_for_the_sender_always_known() -> None:
    limits = Limits(max_dns_sources=4, dns_answer_burst=1000.0)
    announcer = node(limits=limits)
    announcer.announce(TOPIC, 3282)
    announcer.want(TOPIC)
    answers = []
    for number in range(20):
        answer = answer_of(announcer, query(), replace(THERE, host=f"192.0.2.{number + 20}"))
        assert answer is not None
        answers.append(answer.data)
    assert len(announcer._tokens) == 4
    assert announcer.receive_datagram(answers[-1], ECHO, 0.0) == []
    itself = replace(ECHO, host="192.0.2.20")
    assert announcer.receive_datagram(answers[0], itself, 0.0) == []


def test_the_loopback_option_reports_own_answers() -> None:
    announcer = node(loopback=True)
    announcer.announce(TOPIC, 3282)
    announcer.want(TOPIC)
    _, announced = announcer.ask(TOPIC, local_host=HERE, now=0.0)
    assert announcer.receive_datagram(announced, ECHO, 0.0) == [PeerHeard(TOPIC, HERE, 3282)]


# Hostile or malformed input: the rows of section 7 that reach a client


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", bytes(11), bytes(4) + b"\xff" * 8, b"\xff" * 9000, query()[:-1], response()[:5]],
)
def test_what_is_no_message_is_counted_and_otherwise_ignored(data: bytes) -> None:
    victim = seeker()
    assert victim.receive_datagram(data, THERE, 0.0) == []
    assert victim.take_answer() is None
    assert victim.malformed == 1


def test_record_data_beyond_the_datagram_refuses_the_packet() -> None:
    victim = seeker()
    data = response(codec.peers_answer(NAME, "t", [("10.0.0.1", 1)]))
    assert victim.receive_datagram(data[:-1], THERE, 0.0) == []
    assert victim.malformed == 1


def test_the_broken_record_of_a_server_with_32_peers_does_no_harm() -> None:
    victim = seeker()
    strings = b"\x07token=t" + bytes([(6 + 32 * 8) & 0xFF]) + b"peers=" + b"fwAAAQBN" * 32
    record = Record(NAME, 0xFF00, strings)
    data = response(record).replace(b"\xff\x00\x00\x01", b"\x00\x10\x00\x01")
    victim.receive_datagram(data, THERE, 0.0)
    good = response(codec.peers_answer(NAME, "t", [("10.0.0.1", 1)]))
    assert len(victim.receive_datagram(good, THERE, 0.0)) == 1


def test_peers_in_a_query_are_anybodys_claim_and_ignored() -> None:
    record = codec.peers_answer(NAME, "foreign", [("10.0.0.1", 1)])
    assert heard(encode_message(Message(answers=(record,)))) == []
    assert heard(encode_message(Message(additionals=(record,)))) == []


@pytest.mark.parametrize("port", [0])
@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0"])
def test_peers_with_port_0_are_dropped(host: str, port: int) -> None:
    assert heard(response(codec.peers_answer(NAME, "t", [(host, port), ("10.0.0.2", 5)]))) == [
        ("10.0.0.2", 5)
    ]


@pytest.mark.parametrize("host", ["224.0.0.251", "239.1.2.3", "255.255.255.255", "0.0.0.1"])
def test_groups_broadcast_and_no_host_are_dropped(host: str) -> None:
    assert heard(response(codec.peers_answer(NAME, "t", [(host, 80)]))) == []


def test_any_host_is_the_sender_unless_that_is_no_host_either() -> None:
    data = response(codec.peers_answer(NAME, "t", [("0.0.0.0", 9001)]))
    assert heard(data) == [(THERE.host, 9001)]
    assert heard(data, replace(THERE, host="0.0.0.0")) == []


@pytest.mark.parametrize(
    "name",
    [
        f"{TOPIC.hex()}.x.local",
        f"{TOPIC.hex()}.dns-discovery.example",
        f"x.{NAME}",
        f"{NAME}.x",
        codec.DEFAULT_DOMAIN,
        codec.name_of_topic(OTHER),
    ],
)
def test_answers_for_another_domain_or_topic_are_ignored(name: str) -> None:
    assert heard(response(codec.peers_answer(name, "t", [("10.0.0.1", 1)]))) == []
    assert heard(response(codec.service_answer(name, ("10.0.0.1", 1)))) == []


def test_answers_in_another_class_are_ignored() -> None:
    record = codec.peers_answer(NAME, "t", [("10.0.0.1", 1)])
    assert heard(response(replace(record, record_class=3))) == []
    assert heard(response(replace(record, record_class=0x8001))) == [("10.0.0.1", 1)]


@pytest.mark.parametrize("ttl", [None, 1, 64, 254])
def test_a_service_record_that_does_not_come_from_this_link_is_ignored(ttl: int | None) -> None:
    data = response(codec.service_answer(NAME, ("10.0.0.1", 1)))
    assert heard(data) == [("10.0.0.1", 1)]
    assert heard(data, replace(THERE, ttl=ttl)) == []


@pytest.mark.parametrize("target", ["999.1.1.1", "1.2.3x4", "printer.local", "224.0.0.1"])
def test_a_service_target_that_only_looks_like_an_address_is_ignored(target: str) -> None:
    assert heard(response(codec.service_answer(NAME, (target, 80)))) == []


def test_records_with_ttl_0_or_2_to_31_count_like_others() -> None:
    for ttl in (0, 60, 1 << 31):
        record = codec.peers_answer(NAME, "t", [("10.0.0.1", 1)], ttl=ttl)
        assert heard(response(record)) == [("10.0.0.1", 1)]


def test_one_datagram_tells_at_most_so_many_peers() -> None:
    records = [
        codec.peers_answer(NAME, "t", [("10.0.0.1", 100 * part + low) for low in range(1, 31)])
        for part in range(1, 20)
    ]
    assert len(heard(response(*records))) == Limits().max_dns_peers == 31


def test_more_peers_than_an_answer_can_hold_may_be_heard_but_are_not_told() -> None:
    generous = node(limits=Limits(max_dns_peers=40))
    for port in range(1, 100):
        generous.announce(TOPIC, port)
    answer = answer_of(generous, query())
    assert answer is not None
    assert len(codec.decode_peers(peers_in(answer.data))) == codec.MAX_PEERS
    assert len(generous.ask(TOPIC, local_host=HERE, now=0.0)) == 2
    generous.want(TOPIC)
    records = [
        codec.peers_answer(NAME, "t", [("10.0.0.1", 100 * part + low) for low in range(1, 31)])
        for part in range(1, 3)
    ]
    assert len(generous.receive_datagram(response(*records), THERE, 0.0)) == 40


def test_a_peer_repeated_in_one_datagram_is_told_once() -> None:
    record = codec.peers_answer(NAME, "t", [("10.0.0.1", 1)] * 5)
    assert heard(response(record, record)) == [("10.0.0.1", 1)]


def test_who_asks_too_often_gets_no_answer_for_a_while() -> None:
    limits = Limits(dns_answer_burst=3.0, dns_answers_per_second=1.0)
    announcer = node(limits=limits)
    announcer.announce(TOPIC, 3282)
    answers = [answer_of(announcer, query()) for _ in range(10)]
    assert [answer is not None for answer in answers] == [True] * 3 + [False] * 7
    assert announcer.refused == 7
    assert answer_of(announcer, query(), replace(THERE, host="192.0.2.77")) is not None
    announcer.receive_datagram(query(), THERE, 2.0)
    assert announcer.take_answer() is not None


def test_forged_sources_leave_no_more_than_a_bounded_table() -> None:
    limits = Limits(max_dns_sources=16)
    announcer = node(limits=limits)
    announcer.announce(TOPIC, 3282)
    for number in range(500):
        answer_of(announcer, query(), replace(THERE, host=f"10.0.{number // 250}.{number % 250}"))
    assert len(announcer._rate) <= 16
    assert len(announcer._tokens) <= 16


def test_announces_are_bounded() -> None:
    announcer = node(limits=Limits(max_dns_records=3))
    for port in (1, 2, 3, 3):
        announcer.announce(TOPIC, port)
    with pytest.raises(LimitError) as caught:
        announcer.announce(OTHER, 4)
    assert caught.value.limit == "max_dns_records"
    announcer.unannounce(TOPIC, 1)
    announcer.announce(OTHER, 4)


def test_an_answer_never_grows_beyond_one_small_datagram() -> None:
    announcer = node()
    for port in range(1, 200):
        announcer.announce(TOPIC, port)
    answer = answer_of(announcer, query())
    assert answer is not None
    assert len(codec.decode_peers(peers_in(answer.data))) == 31
    assert len(answer.data) < 512
    _, announced = announcer.ask(TOPIC, local_host=HERE, now=0.0)
    assert len(announced) < 512


def test_echoes_waited_for_are_bounded() -> None:
    announcer = node()
    announcer.announce(TOPIC, 3282)
    for number in range(3000):
        announcer.ask(TOPIC, local_host=f"10.0.{number // 250}.{number % 250}", now=0.0)
    assert len(announcer._echoes) <= 1024


def test_datagrams_of_one_host_are_looked_at_up_to_a_rate_and_others_still_are() -> None:
    limits = Limits(dns_datagrams_per_second=1, dns_datagram_burst=5)
    listener = node(limits=limits)
    listener.announce(TOPIC, 1000)
    elsewhere = replace(THERE, host="192.168.1.77")
    for _ in range(20):
        listener.receive_datagram(query(), THERE, 0.0)
    assert listener.dropped == 15
    assert answer_of(listener, query(), elsewhere) is not None
    listener.receive_datagram(query(), THERE, 2.0)
    assert listener.dropped == 15
