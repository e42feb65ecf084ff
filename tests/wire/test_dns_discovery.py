from __future__ import annotations

import hashlib
from typing import Any

import pytest

from covey.errors import EncodeError
from covey.wire import dns_discovery as codec
from covey.wire.dns_messages import Message, encode_message
from tests.vectors_path import load_vectors
from tests.wire.dns_cases import message_of

VECTORS = load_vectors("dns-discovery")
TOPIC = bytes(range(20))
NO_PORTS: list[object] = ["", " 1", "1 ", "1\n", True, None, 80]
NAME = codec.name_of_topic(TOPIC)


def built(message: Message) -> Message:
    """`message` built anew from its fields by the function for its row of the table."""
    records = message.additionals or message.answers
    values = codec.read_text(records[0].data) if records and records[0].type == 16 else {}  # type: ignore[arg-type]
    text = {key: str(value) for key, value in values.items()}
    ttl = records[0].ttl if records else 0
    if message.response:
        answers = [rebuilt_answer(message, text, ttl)] if message.answers else []
        if message.flags:
            return codec.multicast_response(message.questions, answers)
        return codec.response(Message(id=message.id, questions=message.questions), answers)
    if not message.questions:
        service: Any = records[0].data
        return codec.push(message.id, records[0].name, (service.target, service.port), ttl=ttl)
    name = message.questions[0].name
    if not message.flags:
        return codec.multicast_query(name)
    if "announce" in text:
        return codec.announce(message.id, name, text["token"], int(text["announce"]), ttl=ttl)
    if "unannounce" in text:
        return codec.unannounce(message.id, name, text["token"], int(text["unannounce"]), ttl=ttl)
    if "subscribe" in text:
        return codec.lookup(message.id, name, text["token"], ttl=ttl)
    return codec.probe(message.id, name)


def rebuilt_answer(message: Message, text: dict[str, str], ttl: int) -> Any:
    record = message.answers[0]
    data: Any = record.data
    if record.type == 1:
        return codec.address_answer(record.name, data, ttl=ttl)
    if record.type == 33:
        return codec.service_answer(record.name, (data.target, data.port), ttl=ttl)
    if "host" in text:
        asker = (text["host"], int(text["port"]))
        return codec.probe_answer(record.name, text["token"], asker, ttl=ttl)
    peers = codec.decode_peers(text.get("peers"))
    return codec.peers_answer(record.name, text["token"], peers, ttl=ttl)


@pytest.mark.parametrize(
    "case",
    [case for case in VECTORS["messages"] if not case.get("decode_only")],
    ids=lambda case: str(case["name"]),
)
def test_every_message_of_the_table_is_built_to_the_byte(case: dict[str, Any]) -> None:
    assert encode_message(built(message_of(case["message"]))).hex() == case["hex"]


@pytest.mark.parametrize("case", VECTORS["tokens"], ids=lambda case: str(case["host"]))
def test_tokens_of_the_vectors(case: dict[str, Any]) -> None:
    assert codec.token_for(bytes.fromhex(case["secret"]), case["host"]) == case["token"]


def test_tokens_of_the_recorded_dialogue() -> None:
    dialogue = VECTORS["dialogue"]
    for which in ("current", "previous"):
        secret = bytes([dialogue[f"secret_{which}"]]) * 32
        assert codec.token_for(secret, dialogue["client_host"]) == dialogue[f"token_{which}"]


@pytest.mark.parametrize("case", VECTORS["peer_lists"], ids=lambda case: str(len(case["peers"])))
def test_peer_lists_of_the_vectors(case: dict[str, Any]) -> None:
    peers = [(peer["host"], peer["port"]) for peer in case["peers"]]
    assert codec.decode_peers(case["base64"], case.get("sender")) == peers
    if not case.get("decode_only"):
        assert codec.encode_peers(peers) == case["base64"]


@pytest.mark.parametrize("case", VECTORS["channels"], ids=lambda case: str(case["name"]))
def test_channel_names_of_the_vectors(case: dict[str, Any]) -> None:
    topic = hashlib.sha1(bytes.fromhex(case["channel_hex"])).digest()
    assert codec.name_of_topic(topic) == case["name"] + ".dns-discovery.local"
    assert codec.topic_of_name(case["name"] + ".dns-discovery.local") == topic


# Names


def test_case_of_ascii_letters_does_not_matter_in_a_name() -> None:
    assert codec.topic_of_name(NAME.upper()) == TOPIC


@pytest.mark.parametrize(
    "name",
    [
        "",
        "dns-discovery.local",
        f"{TOPIC.hex()}",
        f"{TOPIC.hex()}.local",
        f"{TOPIC.hex()}.dns-discovery.example",
        f"{TOPIC.hex()}.dns-discovery.local.",
        f"{TOPIC.hex()}.x.dns-discovery.local",
        f"x.{TOPIC.hex()}.dns-discovery.local",
        f"{TOPIC.hex()}.dns-discovery\\.local",
        f"{TOPIC.hex()[1:]}.dns-discovery.local",
        f"{TOPIC.hex()}00.dns-discovery.local",
        f"{TOPIC.hex()[2:]}0g.dns-discovery.local",
        f"{TOPIC.hex()[2:]} 0.dns-discovery.local",
        f"{TOPIC.hex()[2:]}\uff10\uff10.dns-discovery.local",
        "\udcff.dns-discovery.local",
    ],
)
def test_only_hex_digits_before_exactly_the_domain_are_a_topic(name: str) -> None:
    assert codec.topic_of_name(name) is None


def test_a_letter_that_only_unicode_calls_the_same_is_another_domain() -> None:
    assert codec.topic_of_name(f"{TOPIC.hex()}.kelvin.local", "kelvin.local") == TOPIC
    assert codec.topic_of_name(f"{TOPIC.hex()}.\u212aelvin.local", "kelvin.local") is None


def test_a_domain_may_have_any_number_of_labels() -> None:
    name = codec.name_of_topic(TOPIC, "peers.example.org")
    assert codec.topic_of_name(name, "peers.example.org") == TOPIC
    assert codec.topic_of_name(name, "example.org") is None


@pytest.mark.parametrize("topic", [b"", bytes(21)])
def test_a_topic_has_1_to_20_bytes(topic: bytes) -> None:
    with pytest.raises(EncodeError):
        codec.name_of_topic(topic)


# TXT strings


def test_text_of_a_repeated_key_the_last_wins_and_no_equals_sign_is_true() -> None:
    strings = [b"subscribe", b"token=a", b"token=b=c==", b"", b"=x", b"peers="]
    assert codec.read_text(strings) == {
        "subscribe": True,
        "token": "b=c==",
        "": "x",
        "peers": "",
    }


def test_a_text_above_255_bytes_is_not_written() -> None:
    assert codec.write_text({"k": "v" * 253})
    with pytest.raises(EncodeError, match="255"):
        codec.write_text({"k": "v" * 254})


# Ports and peers


@pytest.mark.parametrize("text", ["1", "80", "8080", "65535"])
def test_a_port_is_plain_decimal(text: str) -> None:
    assert codec.parse_port(text) == int(text)


@pytest.mark.parametrize(
    "text",
    ["0", "65536", "99999", "080", "123456", "-1", "+1", "12x", "1.0", "٣", *NO_PORTS],
)
def test_no_other_text_is_a_port(text: object) -> None:
    assert codec.parse_port(text) is None


def test_31_peers_fit_one_string_and_32_do_not() -> None:
    peers = [("10.0.0.1", port) for port in range(1, 33)]
    assert len(codec.write_text({"peers": codec.encode_peers(peers[:31])})[0]) == 254
    with pytest.raises(EncodeError, match="31"):
        codec.encode_peers(peers)


@pytest.mark.parametrize("peer", [("::1", 1), ("999.1.1.1", 1), ("1.2.3.4", 65536), ("x", 1)])
def test_what_is_no_ipv4_peer_is_not_written(peer: tuple[str, int]) -> None:
    with pytest.raises(EncodeError):
        codec.encode_peers([peer])


def test_peers_are_read_as_the_reference_reads_base64() -> None:
    entry = "fwAAAQBN"
    assert codec.decode_peers(entry) == [("127.0.0.1", 77)]
    assert codec.decode_peers("f wA\nA*AQ\tBN") == [("127.0.0.1", 77)]
    assert codec.decode_peers(entry + "fwAAAQ==") == [("127.0.0.1", 77)]
    assert codec.decode_peers(entry + "=" + entry) == [("127.0.0.1", 77)]
    assert codec.decode_peers("_-_-_-_-") == codec.decode_peers("/+/+/+/+")
    for nothing in ("", "f", "fw", "====", "\ufffd", True, None):
        assert codec.decode_peers(nothing) == []


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("10.0.0.1", 0),
        ("10.0.0.1", 65536),
        ("0.0.0.0", 1),
        ("0.1.2.3", 1),
        ("224.0.0.251", 1),
        ("239.255.255.255", 1),
        ("240.0.0.1", 1),
        ("255.255.255.255", 1),
        ("999.1.1.1", 1),
        ("1.2.3x4", 1),
        ("1.2.3", 1),
        ("01.2.3.4", 1),
        ("::1", 1),
        ("localhost", 1),
        ("", 1),
    ],
)
def test_what_nobody_can_dial_is_no_peer(host: str, port: int) -> None:
    assert not codec.is_dialable(host, port)


def test_hosts_near_and_far_are_peers() -> None:
    for host in ("127.0.0.1", "10.0.0.1", "169.254.1.1", "192.168.1.255", "203.0.113.7", "8.8.8.8"):
        assert codec.is_dialable(host, 65535)


def test_query_ids_are_never_read_as_utp() -> None:
    ids = {codec.query_id(number) for number in range(65535 * 2)}
    lookalikes = {kind * 0x1000 + 0x100 + low for kind in range(5) for low in range(3)}
    assert ids == set(range(1, 65536)) - lookalikes
