"""Mutated and random datagrams: nothing leaves the receive path but its results."""

from __future__ import annotations

import contextlib
import random

import pytest

from covey.errors import DecodeError
from covey.wire import dns_discovery as codec
from covey.wire.dns_answers import read_lookup_answer, read_probe_answer, read_push
from covey.wire.dns_messages import decode_message, encode_message
from covey.wire.dns_multicast import Arrival, MulticastNode
from tests.vectors_path import load_vectors

VECTORS = load_vectors("dns-discovery")
SEEDS = [
    bytes.fromhex(case["hex"])
    for section in ("messages", "malformed", "odd_decode")
    for case in VECTORS[section]
]
TOPICS = {
    topic
    for case in VECTORS["messages"]
    for question in case["message"]["questions"]
    if (topic := codec.topic_of_name(question["name"])) is not None
}
ARRIVAL = Arrival(host="192.0.2.9", port=5353, ttl=255, local_host="192.0.2.1")


def mutated(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(5):
            case 0:
                out[at:at] = chance.randbytes(chance.randint(1, 8))
            case 1:
                del out[at : at + chance.randint(1, 8)]
            case 2 if at < len(out):
                out[at] = chance.choice([0, 1, 0x3F, 0x40, 0xC0, 0xFF, chance.randrange(256)])
            case 3:
                out[at : at + 2] = (0xC000 | chance.randrange(64)).to_bytes(2, "big")
            case _:
                out += chance.choice(SEEDS)[12:]
    return bytes(out)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_raises_out_of_the_receive_path(seed: int) -> None:
    chance = random.Random(seed)
    node = MulticastNode(secret=bytes(32))
    for topic in TOPICS:
        node.want(topic)
        node.announce(topic, 1000)
    for step in range(300):
        data = mutated(chance.choice(SEEDS), chance)
        for peer in node.receive_datagram(data, ARRIVAL, float(step)):
            assert codec.is_dialable(peer.host, peer.port)
            assert peer.topic in TOPICS
        if answer := node.take_answer():
            assert decode_message(answer.data).response


@pytest.mark.parametrize("seed", range(20))
def test_what_decodes_is_read_without_error_and_encodes_to_what_decodes_the_same(seed: int) -> None:
    chance = random.Random(1000 + seed)
    for _ in range(300):
        data = mutated(chance.choice(SEEDS), chance)
        try:
            message = decode_message(data)
        except DecodeError:
            continue
        for topic in TOPICS:
            read_lookup_answer(message, topic, "192.0.2.9")
        read_probe_answer(message)
        read_push(message, "192.0.2.9")
        try:
            again = encode_message(message)
        except ValueError:
            continue  # a label with a dot is read, but never written
        assert decode_message(again) == message


@pytest.mark.parametrize("seed", range(10))
def test_random_bytes_only_raise_decode_errors(seed: int) -> None:
    chance = random.Random(2000 + seed)
    for _ in range(500):
        data = chance.randbytes(chance.randint(0, 80))
        if chance.random() < 0.5:
            data = (
                bytes(4)
                + bytes([0, chance.randrange(3), 0, chance.randrange(3), 0, 0, 0, 0])
                + data
            )
        with contextlib.suppress(DecodeError):
            decode_message(data)
