"""The state of one direction of a stream, read and forced behind its back."""

from __future__ import annotations

from covey.wire import sodium
from covey.wire.cipher import FastOpener, FastSealer

_SHOWN = 44
"""Key (32), counter (4) and inonce (8); what follows is padding."""


def state_of(half: FastSealer | FastOpener) -> bytes:
    return bytes(sodium.ffi.buffer(half._state, _SHOWN))


def force_state(half: FastSealer | FastOpener, state: bytes) -> None:
    sodium.ffi.buffer(half._state, _SHOWN)[:] = state
