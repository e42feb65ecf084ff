"""The handshakes that a node speaks: one entry per name right of `~` in an address.

An entry makes the sans-I/O session for either role. A new handshake is one class here, or in its
own module, and one line in `default_handshakes`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from covey.address import Step
from covey.errors import AddressError
from covey.keys import KeyPair
from covey.limits import Limits
from covey.wire.identity import PlainSession
from covey.wire.noise import HandshakeState
from covey.wire.raw_session import RawSession
from covey.wire.secret_stream import SecretStream
from covey.wire.session import Opened, Session
from covey.wire.stream_opening import EPHEMERAL_SEED_SIZE, Ahead


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is: the key pair that it proves, and the id that it claims where none is."""

    key_pair: KeyPair
    id: bytes


class Handshake(Protocol):
    """One entry of the registry."""

    @property
    def name(self) -> str:
        """The name in addresses."""

    @property
    def multiplexed(self) -> bool:
        """Whether messages keep their boundaries, so that a muxer can run on top."""

    @property
    def proves_key(self) -> bool:
        """Whether the remote proves a public key."""

    @property
    def quick(self) -> bool:
        """Whether its sessions are `QuickSession`s: they also send keep-alives."""

    def check(self, step: Step, identity: Identity) -> bool:
        """Whether `step` of an address names this very node. Raises `AddressError` for bad data."""

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
        """A new session; `step` is the handshake in the dialled address, None for accepted ones.

        `likely_key` is what the remote proved when it was last met: a hint, and no demand.
        """

    def is_self(self, opened: Opened, identity: Identity) -> bool:
        """Whether the remote turned out to be this very node."""


class NoiseHandshake:
    """The Hypercore secret stream, Noise XX; `noise:KEY` pins the remote's key.

    While a handshake waits for the remote, the ephemeral key of the next one is made: one for each
    role, used once; a forked process begins without.
    """

    __slots__ = ("__weakref__", "_random_bytes", "_spares")
    name = "noise"
    multiplexed = True
    proves_key = True
    quick = True

    def __init__(self, *, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random_bytes = random_bytes
        self._spares: dict[tuple[bytes, bool, int], HandshakeState] = {}
        _with_spares.add(self)

    def check(self, step: Step, identity: Identity) -> bool:
        """The data of `step` is nothing or one 32-byte key in base64."""
        if not step.data:
            return False
        if len(step.data) > 1 or step.key is None:
            raise AddressError(f"noise takes one key of 32 bytes in base64, not {step}")
        return step.key == identity.key_pair.public_key

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
        """A secret stream that has not begun."""
        key_pair = identity.key_pair
        key = step.key if step is not None else None
        kind = (
            key_pair.public_key,
            is_initiator,
            os.getpid(),
        )  # for forks that Python is not told of
        spare = self._spares.pop(kind, None) or self._fresh(key_pair, is_initiator)

        def make_spare() -> None:
            if kind not in self._spares:
                self._spares[kind] = self._fresh(key_pair, is_initiator)

        stream = SecretStream(
            is_initiator=is_initiator,
            key_pair=key_pair,
            now=now,
            random_bytes=self._random_bytes,
            remote_public_key=key,
            ahead=Ahead(spare, make_spare),
            limits=limits,
        )
        stream.likely_key = key or likely_key
        return stream

    def forget_spares(self) -> None:
        """Drop the keys made ahead."""
        self._spares.clear()

    def _fresh(self, key_pair: KeyPair, is_initiator: bool) -> HandshakeState:
        seed = self._random_bytes(EPHEMERAL_SEED_SIZE)
        return HandshakeState(
            "XX", is_initiator=is_initiator, key_pair=key_pair, ephemeral_seed=seed
        )

    def is_self(self, opened: Opened, identity: Identity) -> bool:
        """The remote proved our own key."""
        return opened.remote_key == identity.key_pair.public_key


_with_spares: weakref.WeakSet[NoiseHandshake] = weakref.WeakSet()


def _forked() -> None:
    """A key made ahead is the parent's: a process number does not tell, it may come again."""
    for handshake in tuple(_with_spares):
        handshake.forget_spares()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class PlainHandshake:
    """The discovery swarm's exchange of ids in clear text; messages are raw chunks after it."""

    __slots__ = ()
    name = "plain"
    multiplexed = False
    proves_key = False
    quick = False

    def check(self, step: Step, identity: Identity) -> bool:  # noqa: ARG002
        """`plain` takes no data."""
        if step.data:
            raise AddressError(f"plain takes no data, not {step}")
        return False

    def session(
        self,
        identity: Identity,
        *,
        is_initiator: bool,
        step: Step | None,  # noqa: ARG002
        now: float,
        limits: Limits,
        likely_key: bytes | None = None,  # noqa: ARG002
    ) -> Session:
        """An id exchange that has not begun."""
        return PlainSession(is_initiator=is_initiator, id=identity.id, now=now, limits=limits)

    def is_self(self, opened: Opened, identity: Identity) -> bool:
        """The remote claims our own id."""
        return opened.remote_id == identity.id


class RawHandshake:
    """An entry `raw` for who brings a whole handshake of its own; no node has it unasked."""

    name = "raw"
    multiplexed = False
    proves_key = False
    quick = False

    def check(self, step: Step, identity: Identity) -> bool:  # noqa: ARG002
        """`raw` takes no data."""
        if step.data:
            raise AddressError(f"raw takes no data, not {step}")
        return False

    def session(
        self,
        identity: Identity,  # noqa: ARG002
        *,
        is_initiator: bool,  # noqa: ARG002
        step: Step | None,  # noqa: ARG002
        now: float,
        limits: Limits,  # noqa: ARG002
        likely_key: bytes | None = None,  # noqa: ARG002
    ) -> RawSession:
        """A session that is open from the start."""
        return RawSession(now=now)

    def is_self(self, opened: Opened, identity: Identity) -> bool:  # noqa: ARG002
        """Its user has to find out."""
        return False


def default_handshakes() -> Mapping[str, Handshake]:
    """The registry of a node that was given no other: `noise` and `plain`."""
    return {handshake.name: handshake for handshake in (NoiseHandshake(), PlainHandshake())}
