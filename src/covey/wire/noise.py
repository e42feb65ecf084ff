"""Noise XX, IK, XK and NN over Ed25519 points (secret-stream.md section 3; noise-handshake 4.2.0).

`Noise_<pattern>_Ed25519_ChaChaPoly_BLAKE2b`: the Noise protocol framework, revision 34, with one
liberty: the Diffie-Hellman values are compressed Edwards points, not X25519 coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b, sha512
from types import MappingProxyType

import nacl.bindings

from covey.address import encode_key
from covey.errors import HandshakeError, UsageError
from covey.keys import KEY_SIZE, KeyPair
from covey.wire import sodium

HASH_SIZE = 64
TAG_SIZE = 16

Tokens = tuple[tuple[str, ...], ...]

PATTERNS: Mapping[str, Tokens] = MappingProxyType(
    {
        "XX": (("e",), ("e", "ee", "s", "es"), ("s", "se")),
        "IK": (("e", "es", "s", "ss"), ("e", "ee", "se")),
        "XK": (("e", "es"), ("e", "ee"), ("s", "se")),
        "NN": (("e",), ("e", "ee")),
    }
)
"""Message patterns; in IK and XK the initiator knows the responder's static key before."""

MESSAGE_SIZES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"XX": (32, 96, 64), "IK": (96, 48), "XK": (48, 48, 64), "NN": (32, 48)}
)
"""Bytes of each message with an empty payload (secret-stream.md section 3.2)."""

_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
_PADDING = bytes(64)
_INNER_END = _PADDING.translate(_INNER)
_OUTER_END = _PADDING.translate(_OUTER)


def _hmac(key: bytes, message: bytes) -> bytes:
    """HMAC-BLAKE2b with a key of 64 bytes, half a block; half the cost of `hmac.digest`."""
    inner = blake2b(key.translate(_INNER) + _INNER_END + message).digest()
    return blake2b(key.translate(_OUTER) + _OUTER_END + inner).digest()


def hkdf2(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    """Two 64-byte outputs of the Noise HKDF: an HMAC chain, not RFC 5869 with info."""
    secret = _hmac(chaining_key, material)
    inner = secret.translate(_INNER) + _INNER_END  # both outputs have the same key
    outer = secret.translate(_OUTER) + _OUTER_END
    first = blake2b(outer + blake2b(inner + b"\x01").digest()).digest()
    return first, blake2b(outer + blake2b(inner + first + b"\x02").digest()).digest()


def private_scalar(seed: bytes) -> bytes:
    """The clamped scalar that belongs to an Ed25519 seed."""
    scalar = bytearray(sha512(seed).digest()[:KEY_SIZE])
    scalar[0] &= 248
    scalar[31] &= 127
    scalar[31] |= 64
    return bytes(scalar)


def shared_secret(scalar: bytes, point: bytes) -> bytes:
    """The compressed point `scalar * point`: 32 bytes, used as they are.

    Raises `HandshakeError` for what libsodium refuses: non-canonical encodings, points off the
    curve or outside the prime-order subgroup, those of small order, and an identity result.
    """
    try:
        return sodium.multiply(scalar, point)
    except sodium.CryptoError as error:
        raise HandshakeError("the remote sent a point that is no valid public key") from error


@dataclass(frozen=True, slots=True)
class HandshakeResult:
    """What a completed handshake leaves: keys of 32 bytes for each direction and the hash of 64.

    `tx` seals what we send, `rx` opens what the remote sends. Longer keys are cut to 32 bytes.
    `repr` does not show the secret half.
    """

    tx: bytes = field(repr=False)
    rx: bytes = field(repr=False)
    hash: bytes = field(repr=False)
    public_key: bytes
    remote_public_key: bytes


class SymmetricState:
    """The running hash `h`, chaining key `ck` and cipher key `k` with its nonce counter `n`."""

    __slots__ = ("ck", "h", "k", "n")

    def __init__(self, name: str) -> None:
        self.h = self.ck = name.encode().ljust(HASH_SIZE, b"\0")
        self.k: bytes | None = None
        self.n = 0

    def mix_hash(self, data: bytes) -> None:
        """Hash `data` into the transcript."""
        self.h = blake2b(self.h + data).digest()

    def mix_key(self, material: bytes) -> None:
        """Derive the next chaining and cipher key from a DH result."""
        self.ck, key = hkdf2(self.ck, material)
        self.k = key[:KEY_SIZE]
        self.n = 0

    def _nonce(self) -> bytes:
        self.n += 1
        return bytes(4) + (self.n - 1).to_bytes(8, "little")

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Encrypt (in clear while there is no key) and hash what goes out."""
        if self.k is None:
            self.mix_hash(plaintext)
            return plaintext
        ciphertext = sodium.encrypt(plaintext, self.h, self._nonce(), self.k)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """The reverse; `sodium.CryptoError` when the tag is wrong."""
        if self.k is None:
            plaintext = ciphertext
        else:
            plaintext = sodium.decrypt(ciphertext, self.h, self._nonce(), self.k)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """The keys initiator to responder and responder to initiator."""
        first, second = hkdf2(self.ck, b"")
        return first[:KEY_SIZE], second[:KEY_SIZE]


class HandshakeState:
    """One side of a handshake: `send` and `receive` in turn until `complete`.

    `ephemeral_seed` is 32 fresh random bytes, never to be used twice. `remote_public_key` is the
    key that the remote must prove, in every pattern; IK and XK need it on the initiator's side.
    Raises `UsageError` for a pattern we do not know and for a key that is missing or misshapen.

    A handshake may be made before it is needed, and serves one stream: `begin` claims it. What is
    slow are the multiplications, and some can be done while this side waits anyway: `send_ahead`,
    `receive_ahead` and `multiply_ahead` change when they are done, never what is sent or accepted.
    """

    __slots__ = (
        "_begun", "_ephemeral", "_ephemeral_public", "_expected", "_initiator", "_key_pair",
        "_known", "_messages", "_pattern", "_remote_ephemeral", "_sent", "_sizes", "_static",
        "_turn", "complete", "remote_public_key", "sends_next", "symmetric",
    )  # fmt: skip

    def __init__(
        self,
        pattern: str,
        *,
        is_initiator: bool,
        key_pair: KeyPair,
        ephemeral_seed: bytes,
        prologue: bytes = b"",
        remote_public_key: bytes | None = None,
    ) -> None:
        if pattern not in PATTERNS:
            raise UsageError(f"no Noise pattern {pattern!r}, there are {', '.join(PATTERNS)}")
        self._pattern = pattern
        self._messages = PATTERNS[pattern]
        self._sizes = MESSAGE_SIZES[pattern]
        self._initiator = is_initiator
        self._key_pair = key_pair
        self._expected: bytes | None = None
        if remote_public_key is not None:
            self._expect(remote_public_key)
        self._static = private_scalar(key_pair.seed)
        self._ephemeral_public, _ = nacl.bindings.crypto_sign_seed_keypair(ephemeral_seed)
        self._ephemeral = private_scalar(ephemeral_seed)
        self._remote_ephemeral = b""
        self._turn = 0
        self._begun = False
        self._sent = 0
        self._known: dict[tuple[str, bytes], bytes] = {}
        self.complete = False
        """Whether all messages were exchanged."""
        self.sends_next = is_initiator
        """Whether the next message is ours."""
        self.remote_public_key: bytes | None = None
        self.symmetric = SymmetricState(f"Noise_{pattern}_Ed25519_ChaChaPoly_BLAKE2b")
        self.symmetric.mix_hash(prologue)
        if pattern in ("IK", "XK"):
            self._mix_known_key()

    def _mix_known_key(self) -> None:
        if not self._initiator:
            self.symmetric.mix_hash(self._key_pair.public_key)
            return
        if self._expected is None:
            raise UsageError(f"the initiator of {self._pattern} must know the remote public key")
        self.remote_public_key = self._expected
        self.symmetric.mix_hash(self._expected)

    def begin(self, *, is_initiator: bool, remote_public_key: bytes | None = None) -> None:
        """Claim a handshake that was made ahead, for the remote that must prove this key.

        `UsageError` when it was claimed before: an ephemeral key serves once; and for another role.
        """
        if self._begun or self._turn or is_initiator is not self._initiator:
            raise UsageError("a handshake serves one stream, in the role it was made for")
        self._begun = True
        if remote_public_key is not None:
            self._expect(remote_public_key)

    def _expect(self, public_key: bytes) -> None:
        if len(public_key) != KEY_SIZE:
            raise UsageError(f"a public key has 32 bytes, not {len(public_key)}")
        self._expected = public_key

    @property
    def next_size(self) -> int:
        """Bytes of the next message with an empty payload."""
        return self._sizes[self._turn]

    @property
    def hash(self) -> bytes:
        """The handshake hash: 64 bytes, equal on both sides, once `complete`."""
        return self.symmetric.h

    def result(self) -> HandshakeResult:
        """The keys of a complete handshake; `UsageError` before, and for NN, which proves none."""
        if not self.complete or self.remote_public_key is None:
            raise UsageError("the handshake is not complete or proves no key")
        tx, rx = self.split()
        return HandshakeResult(tx, rx, self.hash, self._key_pair.public_key, self.remote_public_key)

    def split(self) -> tuple[bytes, bytes]:
        """The keys for sending and for receiving, 32 bytes each."""
        first, second = self.symmetric.split()
        return (first, second) if self._initiator else (second, first)

    def send_ahead(self) -> bytes:
        """What the next message begins with and costs nothing: our ephemeral key, or no bytes.

        `send` returns the rest then. Once, and in turn, as `send`.
        """
        self._check_turn(sending=True)
        if self._sent or self._messages[self._turn][0] != "e":
            return b""
        self._sent = 1
        self.symmetric.mix_hash(self._ephemeral_public)
        return self._ephemeral_public

    def send(self, payload: bytes = b"") -> bytes:
        """The next message. `UsageError` out of turn, `HandshakeError` for a bad remote key."""
        parts = [self.send_ahead()]
        for step in self._messages[self._turn][self._sent :]:
            if step == "s":
                parts.append(self.symmetric.encrypt_and_hash(self._key_pair.public_key))
            else:
                self._mix_shared(step)
        parts.append(self.symmetric.encrypt_and_hash(payload))
        self._next_turn()
        return b"".join(parts)

    def _check_turn(self, *, sending: bool) -> None:
        if self.complete or self.sends_next is not sending:
            whose = "our" if sending else "the remote's"
            raise UsageError(f"it is not {whose} turn to send a handshake message")

    def _next_turn(self) -> None:
        self._turn += 1
        self._sent = 0
        self.complete = self._turn == len(self._messages)
        self.sends_next = not self.complete and self._initiator is (self._turn % 2 == 0)

    def receive_ahead(self, beginning: bytes) -> None:
        """Multiply by the ephemeral key that the remote's next message begins with.

        For an initiator that has the `beginning` of a message and waits for the rest. Raises
        `HandshakeError` for a bad point, as `receive` will.
        """
        if self._initiator and self._turn == 1 and len(beginning) >= KEY_SIZE:
            point = beginning[:KEY_SIZE]
            for step in {*self._messages[1], *self._messages[-1]} & {"ee", "se"}:
                self._multiply(step, point)

    def multiply_ahead(self, public_key: bytes) -> None:
        """Multiply by the static key that the remote is supposed to send, once its turn comes.

        Whether the remote has it shows later; a wrong guess costs the time only.
        """
        step, first = ("es", 1) if self._initiator else ("se", 0)
        if any(step in message for message in self._messages[first::2]):
            with suppress(HandshakeError):
                self._multiply(step, public_key)

    def receive(self, message: bytes) -> bytes:
        """The payload of the remote's next message.

        Raises `HandshakeError` when it is too short, carries a bad point, fails authentication, or
        proves another key than the expected one; `UsageError` out of turn.
        """
        self._check_turn(sending=False)
        if len(message) < self.next_size:
            raise HandshakeError(
                f"handshake message {self._turn + 1} has {len(message)} bytes, "
                f"it takes {self.next_size}"
            )
        try:
            payload = self._receive(message)
        except sodium.CryptoError as error:
            raise HandshakeError(
                f"handshake message {self._turn + 1} failed authentication: "
                "damaged, or meant for another key"
            ) from error
        self._next_turn()
        return payload

    def _receive(self, message: bytes) -> bytes:
        offset = 0
        for step in self._messages[self._turn]:
            if step == "e":
                self._remote_ephemeral = message[offset : offset + KEY_SIZE]
                offset += KEY_SIZE
                self.symmetric.mix_hash(self._remote_ephemeral)
            elif step == "s":
                end = offset + KEY_SIZE + TAG_SIZE
                self._learn_key(self.symmetric.decrypt_and_hash(message[offset:end]))
                offset = end
            else:
                self._mix_shared(step)
        return self.symmetric.decrypt_and_hash(message[offset:])

    def _learn_key(self, public_key: bytes) -> None:
        """Take the remote's static key, before anything that tells ours is sent."""
        if self._expected is not None and public_key != self._expected:
            raise another_key(self._expected, public_key)
        self.remote_public_key = public_key

    def _mix_shared(self, step: str) -> None:
        """Mix in the DH result of `step`: the initiator's key first, then the responder's."""
        theirs = step[1] if self._initiator else step[0]
        point = self._remote_ephemeral if theirs == "e" else self.remote_public_key
        self.symmetric.mix_key(self._multiply(step, point or b""))

    def _multiply(self, step: str, point: bytes) -> bytes:
        """The secret that our key of `step` shares with `point`, worked out once."""
        secret = self._known.get((step, point))
        if secret is None:
            ours = step[0] if self._initiator else step[1]
            scalar = self._ephemeral if ours == "e" else self._static
            secret = self._known[step, point] = shared_secret(scalar, point)
        return secret


def another_key(expected: bytes, key: bytes) -> HandshakeError:
    """The remote is not who was asked for: both keys in hex and as addresses write them."""
    return HandshakeError(
        f"the remote has another key: expected {expected.hex()} ({encode_key(expected)}), "
        f"got {key.hex()} ({encode_key(key)})"
    )
