from __future__ import annotations

from typing import Any

import pytest

from covey.wire import dns_discovery as codec
from covey.wire.dns_answers import (
    LookupAnswer,
    ProbeAnswer,
    PushedPeer,
    read_lookup_answer,
    read_probe_answer,
    read_push,
)
from covey.wire.dns_messages import Message, Record, Service, decode_message
from tests.vectors_path import load_vectors

STEPS = [
    step for step in load_vectors("dns-discovery")["dialogue"]["steps"] if step.get("reply_hex")
]
TOPIC = bytes(range(20))
NAME = codec.name_of_topic(TOPIC)
SERVER = "198.51.100.7"


def answered(*records: Record, response: bool = True) -> Message:
    return Message(id=5, response=response, answers=records)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: str(step["description"]))
def test_the_answers_of_a_recorded_server_are_read(step: dict[str, Any]) -> None:
    dialogue = load_vectors("dns-discovery")["dialogue"]
    reply = decode_message(bytes.fromhex(step["reply_hex"]))
    topic = codec.topic_of_name(reply.questions[0].name, dialogue["domain"])
    texts = [record for record in reply.answers if record.type == 16]
    if not texts:
        assert read_lookup_answer(reply, topic or TOPIC, SERVER) is None
    elif topic is None:
        seen = ProbeAnswer(dialogue["token_current"], dialogue["client_host"], step["from_port"])
        assert read_probe_answer(reply, dialogue["domain"]) == seen
    else:
        answer = read_lookup_answer(reply, topic, SERVER, dialogue["domain"])
        assert answer is not None
        assert answer.token == dialogue["token_current"]
        assert bool(answer.peers) == (b"peers=" in bytes.fromhex(step["reply_hex"]))
        assert {host for host, _ in answer.peers} <= {dialogue["client_host"]}
        assert read_probe_answer(reply, dialogue["domain"]) is None


@pytest.mark.parametrize(
    "step", [s for s in STEPS if s.get("push")], ids=lambda step: str(step["description"])
)
def test_the_pushes_of_a_recorded_server_are_read(step: dict[str, Any]) -> None:
    request = decode_message(bytes.fromhex(step["send_hex"]))
    topic = codec.topic_of_name(request.questions[0].name)
    assert topic is not None
    announced = codec.read_text(request.additionals[0].data)["announce"]  # type: ignore[arg-type]
    port = int(announced) or step["from_port"]
    for push in step["push"]:
        message = decode_message(bytes.fromhex("1234" + push["message_without_id_hex"]))
        assert read_push(message, SERVER) == [PushedPeer(topic, "127.0.0.1", port)]


def test_an_answer_for_another_topic_or_domain_is_not_ours() -> None:
    for name in ("00" * 20 + ".dns-discovery.local", TOPIC.hex() + ".example.org"):
        record = codec.peers_answer(name, "t", [("10.0.0.1", 1)])
        assert read_lookup_answer(answered(record), TOPIC, SERVER) is None


def test_a_query_is_no_answer_and_an_answer_no_push() -> None:
    record = codec.peers_answer(NAME, "t", [("10.0.0.1", 1)])
    assert read_lookup_answer(answered(record, response=False), TOPIC, SERVER) is None
    probe = codec.probe_answer(codec.DEFAULT_DOMAIN, "t", ("10.0.0.1", 1))
    assert read_probe_answer(answered(probe, response=False)) is None
    assert read_push(answered(codec.service_answer(NAME, ("10.0.0.1", 1))), SERVER) == []


def test_of_the_peers_only_those_that_can_be_dialled_are_kept_once_each() -> None:
    peers = [("10.0.0.1", 1), ("0.0.0.0", 9001), ("10.0.0.1", 1), ("10.0.0.2", 0)]
    peers += [("224.0.0.251", 5), ("255.255.255.255", 6)]
    message = answered(codec.peers_answer(NAME, "t", peers))
    assert read_lookup_answer(message, TOPIC, SERVER) == LookupAnswer(
        "t", (("10.0.0.1", 1), (SERVER, 9001))
    )


@pytest.mark.parametrize("token", ["null", ""])
def test_a_lost_token_is_not_kept_as_one(token: str) -> None:
    message = answered(codec.peers_answer(NAME, token, []))
    assert read_lookup_answer(message, TOPIC, SERVER) == LookupAnswer(None, ())


def test_a_probe_answer_with_an_impossible_address_says_nothing_of_it() -> None:
    for host, port in (("999.1.1.1", "99999"), ("0.0.0.0", "0"), ("::1", "x")):
        values = {"token": "t", "host": host, "port": port}
        record = codec.text_record(codec.DEFAULT_DOMAIN, values)
        assert read_probe_answer(answered(record)) == ProbeAnswer("t", None, None)


@pytest.mark.parametrize(
    "target", ["999.1.1.1", "1.2.3x4", "224.0.0.1", "255.255.255.255", "example.org", ""]
)
def test_a_push_whose_target_only_looks_like_an_address_is_ignored(target: str) -> None:
    assert read_push(codec.push(1, NAME, (target, 80)), SERVER) == []


def test_a_push_of_port_0_or_another_class_is_ignored() -> None:
    assert read_push(codec.push(1, NAME, ("10.0.0.1", 0)), SERVER) == []
    record = Record(NAME, 33, Service(80, "10.0.0.1"), record_class=3)
    assert read_push(answered(record, response=False), SERVER) == []


def test_a_push_of_any_host_means_its_sender() -> None:
    push = codec.push(1, NAME, ("0.0.0.0", 80))
    assert read_push(push, SERVER) == [PushedPeer(TOPIC, SERVER, 80)]
