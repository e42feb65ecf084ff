from __future__ import annotations

import hmac
import random
from typing import Any

import pytest

from covey.errors import HandshakeError, UsageError
from covey.keys import KeyPair
from covey.wire import noise
from covey.wire.noise import (
    MESSAGE_SIZES,
    HandshakeResult,
    HandshakeState,
    SymmetricState,
    private_scalar,
    shared_secret,
)
from tests.vectors_path import load_vectors

CASES: list[dict[str, Any]] = load_vectors("secret-stream")["cases"]


def cases(kind: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in CASES if case["kind"] == kind]


def handshake_of(case: dict[str, Any], role: str) -> HandshakeState:
    side = case[role]
    responder = KeyPair.from_seed(bytes.fromhex(case["responder"]["static_seed"]))
    knows = role == "initiator" and case["pattern"] in ("IK", "XK")
    return HandshakeState(
        case["pattern"],
        is_initiator=role == "initiator",
        key_pair=KeyPair.from_seed(bytes.fromhex(side["static_seed"])),
        ephemeral_seed=bytes.fromhex(side["ephemeral_seed"]),
        prologue=bytes.fromhex(case["prologue"]),
        remote_public_key=responder.public_key if knows else None,
    )


def make_handshakes(
    pattern: str,
    *,
    initiator_expects: bytes | None = None,
    responder_expects: bytes | None = None,
    prologues: tuple[bytes, bytes] = (b"", b""),
) -> tuple[HandshakeState, HandshakeState]:
    left, right = KeyPair.from_seed(b"l" * 32), KeyPair.from_seed(b"r" * 32)
    if initiator_expects is None and pattern in ("IK", "XK"):
        initiator_expects = right.public_key
    return (
        HandshakeState(
            pattern,
            is_initiator=True,
            key_pair=left,
            ephemeral_seed=b"1" * 32,
            prologue=prologues[0],
            remote_public_key=initiator_expects,
        ),
        HandshakeState(
            pattern,
            is_initiator=False,
            key_pair=right,
            ephemeral_seed=b"2" * 32,
            prologue=prologues[1],
            remote_public_key=responder_expects,
        ),
    )


def finish(
    receiver: HandshakeState, message: bytes, left: HandshakeState, right: HandshakeState
) -> None:
    receiver.receive(message)
    run(left, right)


def run(left: HandshakeState, right: HandshakeState) -> list[bytes]:
    messages = []
    while not (left.complete and right.complete):
        sender, receiver = (left, right) if left.sends_next else (right, left)
        messages.append(sender.send())
        receiver.receive(messages[-1])
    return messages


@pytest.mark.parametrize("case", cases("dh"))
def test_dh_gives_the_recorded_point_in_both_directions(case: dict[str, Any]) -> None:
    seed_a, seed_b = bytes.fromhex(case["seed_a"]), bytes.fromhex(case["seed_b"])
    pair_a, pair_b = KeyPair.from_seed(seed_a), KeyPair.from_seed(seed_b)
    assert pair_a.public_key.hex() == case["public_a"]
    assert pair_b.public_key.hex() == case["public_b"]
    assert shared_secret(private_scalar(seed_a), pair_b.public_key).hex() == case["shared"]
    assert shared_secret(private_scalar(seed_b), pair_a.public_key).hex() == case["shared"]


@pytest.mark.parametrize("case", cases("noise"))
def test_every_message_payload_and_key_of_the_recorded_handshakes(case: dict[str, Any]) -> None:
    sides = {role: handshake_of(case, role) for role in ("initiator", "responder")}
    for entry in case["messages"]:
        sender = sides[entry["from"]]
        receiver = sides["responder" if entry["from"] == "initiator" else "initiator"]
        assert sender.sends_next
        message = sender.send(bytes.fromhex(entry["payload"]))
        assert message.hex() == entry["message"]
        assert receiver.receive(message).hex() == entry["payload"]
    split = case["split"]
    expected = (split["initiator_to_responder"], split["responder_to_initiator"])
    for role, side in sides.items():
        assert side.complete
        assert side.hash.hex() == case["handshake_hash"]
        tx, rx = (key.hex() for key in side.split())
        assert (tx, rx) == (expected if role == "initiator" else expected[::-1])


@pytest.mark.parametrize("case", cases("session"))
@pytest.mark.parametrize("role", ["initiator", "responder"])
def test_the_state_after_every_token_is_the_recorded_one(
    case: dict[str, Any], role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace: list[dict[str, Any]] = []

    def watched(name: str, operation: str) -> Any:
        method = getattr(SymmetricState, name)

        def call(self: SymmetricState, data: bytes) -> Any:
            nested = name == "mix_hash" and busy[0]
            busy[0] += 1
            result = method(self, data)
            busy[0] -= 1
            if not nested:
                trace.append(
                    {
                        "op": operation,
                        "h": self.h.hex(),
                        "ck": self.ck.hex(),
                        "k": None if self.k is None else self.k.hex(),
                        "n": None if self.k is None else self.n,
                    }
                )
            return result

        return call

    busy = [0]
    sides = {name: handshake_of(case, name) for name in ("initiator", "responder")}
    state = sides[role].symmetric
    assert state.h.hex() == case["noise_initial_state"]["h"]
    assert state.ck.hex() == case["noise_initial_state"]["ck"]
    frames = [bytes.fromhex(entry["wire"])[3:] for entry in case["handshake_messages"]]
    for name, operation in (
        ("mix_hash", "mixHash"),
        ("mix_key", "mixKey"),
        ("encrypt_and_hash", "encryptAndHash"),
        ("decrypt_and_hash", "decryptAndHash"),
    ):
        monkeypatch.setattr(SymmetricState, name, watched(name, operation))
    for frame in frames:
        if sides[role].sends_next:
            assert sides[role].send() == frame
        else:
            sides[role].receive(frame)
    assert trace == case[f"noise_trace_{role}"]


def test_hmac_is_the_standard_one_with_a_block_of_128_bytes() -> None:
    key, message = bytes(range(64)), b"message"
    assert noise._hmac(key, message) == hmac.digest(key, message, "blake2b")


@pytest.mark.parametrize("pattern", sorted(MESSAGE_SIZES))
def test_message_sizes_are_those_of_the_table(pattern: str) -> None:
    left, right = make_handshakes(pattern)
    assert tuple(map(len, run(left, right))) == MESSAGE_SIZES[pattern]
    assert left.hash == right.hash
    assert left.split() == right.split()[::-1]


@pytest.mark.parametrize("pattern", ["XX", "IK", "XK"])
def test_both_sides_learn_the_proven_keys(pattern: str) -> None:
    left, right = make_handshakes(pattern)
    run(left, right)
    assert left.result().remote_public_key == right.result().public_key
    assert right.result().remote_public_key == left.result().public_key
    assert left.result().tx == right.result().rx


def test_nn_proves_no_key_and_gives_no_result() -> None:
    left, right = make_handshakes("NN")
    run(left, right)
    with pytest.raises(UsageError, match="proves no key"):
        left.result()


@pytest.mark.parametrize("pattern", ["XX", "IK", "XK"])
def test_a_responder_refuses_an_initiator_with_another_key(pattern: str) -> None:
    expected = KeyPair.from_seed(b"x" * 32).public_key
    left, right = make_handshakes(pattern, responder_expects=expected)
    with pytest.raises(HandshakeError, match=f"expected {expected.hex()} .*, got"):
        run(left, right)
    assert right.remote_public_key is None


def test_an_xx_initiator_refuses_another_key_before_it_tells_its_own() -> None:
    expected = KeyPair.from_seed(b"x" * 32).public_key
    left, right = make_handshakes("XX", initiator_expects=expected)
    right.receive(left.send())
    with pytest.raises(HandshakeError, match="another key"):
        left.receive(right.send())
    assert not left.sends_next


@pytest.mark.parametrize("pattern", ["IK", "XK"])
def test_a_message_meant_for_another_key_does_not_authenticate(pattern: str) -> None:
    other = KeyPair.from_seed(b"x" * 32).public_key
    left, right = make_handshakes(pattern, initiator_expects=other)
    with pytest.raises(HandshakeError, match="meant for another key"):
        right.receive(left.send())


@pytest.mark.parametrize("pattern", sorted(MESSAGE_SIZES))
def test_another_prologue_does_not_authenticate(pattern: str) -> None:
    with pytest.raises(HandshakeError, match="failed authentication"):
        run(*make_handshakes(pattern, prologues=(b"one", b"two")))


@pytest.mark.parametrize("pattern", sorted(MESSAGE_SIZES))
def test_any_message_that_is_too_short_is_refused(pattern: str) -> None:
    for cut in range(len(MESSAGE_SIZES[pattern])):
        left, right = make_handshakes(pattern)
        for _ in range(cut):
            sender, receiver = (left, right) if left.sends_next else (right, left)
            receiver.receive(sender.send())
        sender, receiver = (left, right) if left.sends_next else (right, left)
        with pytest.raises(HandshakeError, match="it takes"):
            receiver.receive(sender.send()[:-1])


@pytest.mark.parametrize("pattern", ["XX", "IK", "XK"])
def test_any_flipped_bit_ends_the_handshake(pattern: str) -> None:
    source = random.Random(pattern)
    for cut in range(len(MESSAGE_SIZES[pattern])):
        for _ in range(20):
            left, right = make_handshakes(pattern)
            for _ in range(cut):
                sender, receiver = (left, right) if left.sends_next else (right, left)
                receiver.receive(sender.send())
            sender, receiver = (left, right) if left.sends_next else (right, left)
            message = bytearray(sender.send())
            message[source.randrange(len(message))] ^= 1 << source.randrange(8)
            with pytest.raises(HandshakeError):
                finish(receiver, bytes(message), left, right)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(b"\x01" + bytes(31), id="identity"),
        pytest.param(bytes(32), id="order four"),
        pytest.param(b"\xee" + b"\xff" * 30 + b"\x7f", id="not canonical"),
        pytest.param(b"\x02" + bytes(31), id="not on the curve"),
        pytest.param(b"", id="empty"),
    ],
)
def test_a_point_that_libsodium_refuses_is_refused(point: bytes) -> None:
    with pytest.raises(HandshakeError, match="no valid public key"):
        shared_secret(private_scalar(b"s" * 32), point)


def test_misuse_is_told_to_the_caller() -> None:
    left, right = make_handshakes("XX")
    with pytest.raises(UsageError, match="our turn"):
        right.send()
    with pytest.raises(UsageError, match="remote's turn"):
        left.receive(bytes(32))
    with pytest.raises(UsageError, match="not complete"):
        left.result()
    for options, told in (
        ({"pattern": "KK"}, "no Noise pattern 'KK'"),
        ({"pattern": "IK"}, "must know the remote public key"),
        ({"pattern": "XX", "remote_public_key": b"short"}, "32 bytes, not 5"),
    ):
        with pytest.raises(UsageError, match=told):
            HandshakeState(
                is_initiator=True,
                key_pair=KeyPair.from_seed(bytes(32)),
                ephemeral_seed=bytes(32),
                **options,
            )


def test_the_result_does_not_show_its_keys() -> None:
    result = HandshakeResult(b"T" * 32, b"R" * 32, b"H" * 64, b"p" * 32, b"q" * 32)
    assert "T" * 8 not in repr(result)
    assert "R" * 8 not in repr(result)
    assert "H" * 8 not in repr(result)
