"""The handshake and transport registries."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from covey.address import Address, Step, encode_key
from covey.errors import AddressError
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.endpoint import Endpoint
from covey.net.handshakes import (
    Handshake,
    Identity,
    NoiseHandshake,
    PlainHandshake,
    default_handshakes,
)
from covey.net.transports import default_transports
from covey.wire.secret_stream import SecretStream
from covey.wire.session import Opened, Session
from tests.net.endpoints import HOST, dialling, listening, receive

IDENTITY = Identity(KeyPair.generate(), b"i" * 32)


def step(text: str) -> Step:
    found = Address.parse(f"net:h:1~{text}").handshake
    assert found is not None
    return found


def test_the_registries_hold_what_is_spoken_now() -> None:
    assert set(default_handshakes()) == {"noise", "plain"}
    assert set(default_transports()) == {"net"}


@pytest.mark.parametrize("text", ["noise:short", "noise:a:b", "noise:"])
def test_noise_refuses_data_that_is_no_key(text: str) -> None:
    with pytest.raises(AddressError):
        NoiseHandshake().check(step(text), IDENTITY)


def test_noise_knows_its_own_key() -> None:
    own = Address.net("h", 1, "noise", IDENTITY.key_pair.public_key).handshake
    other = Address.net("h", 1, "noise", bytes(32)).handshake
    assert own is not None
    assert other is not None
    assert NoiseHandshake().check(own, IDENTITY)
    assert not NoiseHandshake().check(other, IDENTITY)
    assert not NoiseHandshake().check(step("noise"), IDENTITY)


def test_plain_takes_no_data() -> None:
    assert not PlainHandshake().check(step("plain"), IDENTITY)
    with pytest.raises(AddressError):
        PlainHandshake().check(step("plain:x"), IDENTITY)


def test_the_first_message_depends_on_the_role() -> None:
    for handshake in default_handshakes().values():
        for is_initiator in (True, False):
            session = handshake.session(
                IDENTITY, is_initiator=is_initiator, step=None, now=0.0, limits=Limits()
            )
            sent = b"".join(bytes(data) for data in session.data_to_send())
            if handshake.name == "plain":
                assert sent == b"\x20" + b"i" * 32
            else:
                assert len(sent) == (35 if is_initiator else 0)


class RenamedNoise(NoiseHandshake):
    """A handshake of the application's own."""

    __slots__ = ("made",)
    name = "own-noise"

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def session(
        self,
        identity: Identity,
        *,
        is_initiator: bool,
        step: Step | None,
        now: float,
        limits: Limits,
        likely_key: bytes | None = None,
    ) -> Session:
        self.made += 1
        return super().session(
            identity,
            is_initiator=is_initiator,
            step=step,
            now=now,
            limits=limits,
            likely_key=likely_key,
        )


async def test_an_application_can_register_a_handshake() -> None:
    own = RenamedNoise()
    registry: dict[str, Handshake] = {own.name: own}
    async with (
        listening(handshakes=registry, handshake=own.name) as side,
        dialling(handshakes=registry, handshake=own.name) as dialler,
    ):
        ours = await dialler.dial(Address.parse(f"net:{HOST}:{side.port}~own-noise"))
        await ours.send(b"hello")
        theirs = await side.next()
        assert await receive(theirs) == b"hello"
        assert ours.handshake == "own-noise"
        assert own.made == 2
        assert ours.attempt.proves_key
        assert ours.attempt.keeps_alive
        key = encode_key(dialler.key_pair.public_key)
        assert str(theirs.address).endswith(f"~own-noise:{key}")
        with pytest.raises(AddressError):
            await dialler.dial(Address.parse(f"net:{HOST}:{side.port}~noise"))


async def test_an_unregistered_transport_is_an_address_error() -> None:
    async with Endpoint(key_pair=KeyPair.generate(), transports={}) as endpoint:
        with pytest.raises(AddressError):
            await endpoint.dial(Address.net(HOST, 1))


def test_self_is_a_proven_key_or_a_claimed_id() -> None:
    proven = Opened(IDENTITY.key_pair.public_key, None, None)
    claimed = Opened(None, IDENTITY.id, None)
    assert NoiseHandshake().is_self(proven, IDENTITY)
    assert not NoiseHandshake().is_self(claimed, IDENTITY)
    assert PlainHandshake().is_self(claimed, IDENTITY)
    assert not PlainHandshake().is_self(proven, IDENTITY)


def answered(noise: NoiseHandshake) -> bytes:
    """The beginning of a responder's answer; it has made the next key ahead then."""
    asking = NoiseHandshake().session(
        IDENTITY, is_initiator=True, step=None, now=0.0, limits=Limits()
    )
    session = noise.session(IDENTITY, is_initiator=False, step=None, now=0.0, limits=Limits())
    assert isinstance(session, SecretStream)
    session.receive_data(b"".join(asking.data_to_send()), 0.0)
    beginning = b"".join(session.data_to_send())
    session.work()
    session.work()
    return beginning


def test_a_key_made_ahead_is_used_once_and_by_its_own_role() -> None:
    noise = NoiseHandshake()
    assert len({answered(noise) for _ in range(5)}) == 5
    (kept,) = noise._spares.values()
    noise.session(IDENTITY, is_initiator=True, step=None, now=0.0, limits=Limits())
    assert list(noise._spares.values()) == [kept]
    noise.session(IDENTITY, is_initiator=False, step=None, now=0.0, limits=Limits())
    assert noise._spares == {}


def test_a_fork_does_not_use_a_key_made_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = NoiseHandshake()
    answered(noise)
    kept = list(noise._spares.values())
    monkeypatch.setattr("os.getpid", lambda: -1)
    noise.session(IDENTITY, is_initiator=False, step=None, now=0.0, limits=Limits())
    assert list(noise._spares.values()) == kept


FORKING = """
import os, sys
from tests.net.test_handshakes import NoiseHandshake, answered

os.getpid = lambda: 7  # as the first children of two new process namespaces have it
noise = NoiseHandshake()
answered(noise)
assert noise._spares
child = os.fork()
if not child:
    os._exit(len(noise._spares))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or not noise._spares)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_with_the_number_of_its_parent_has_no_key_made_ahead() -> None:
    subprocess.run([sys.executable, "-c", FORKING], check=True, timeout=60)
