"""What users of a flock give it: where a peer is, and options; checked before anything happens."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeAlias, TypeGuard

from covey.address import Address
from covey.conn.hub import Hub
from covey.errors import AddressError, UsageError
from covey.keys import KeyPair
from covey.limits import Limits
from covey.wire.identity import MAX_ID_SIZE

PeerPlace: TypeAlias = int | str | tuple[str, int] | Address
"""A port of 127.0.0.1, a multiserver address, or host and port."""

_EXPECTED = "a port of this machine, a multiserver address, or (host, port)"


def place_of(peer: PeerPlace, handshake: str | None = None) -> tuple[str, int, bytes | None]:
    """Host, port and key of a peer in any of the forms that `add_peer` takes.

    With `handshake` an address must be one that is dialled over `net` with that very handshake:
    what else it demands would be lost, and its key with it. Raises `AddressError` for one that is
    not, and for text that is no address, `UsageError` for an address without a host and a port,
    `TypeError` for what has none of the forms.
    """
    if isinstance(peer, str):
        peer = Address.parse(peer)
    if isinstance(peer, Address):
        return _place_in(peer if handshake is None else _fit_for(handshake, peer))
    if isinstance(peer, int) and not isinstance(peer, bool):
        return "127.0.0.1", peer, None
    if not isinstance(peer, (tuple, list)):
        raise TypeError(f"a peer is {_EXPECTED}, not {type(peer).__name__}")
    if len(peer) != 2:
        raise UsageError(f"a peer is {_EXPECTED}, not {len(peer)} values")
    host, port = peer
    if not isinstance(host, str) or not _is_number(port):
        kinds = f"({type(host).__name__}, {type(port).__name__})"
        raise TypeError(f"a host is text and a port a number, not {kinds}")
    return host, port, None


def _place_in(address: Address) -> tuple[str, int, bytes | None]:
    if address.host is None or address.port is None:
        raise UsageError(f"no host and port in {address}")
    step = address.handshake
    return address.host, address.port, step.key if step is not None else None


def _fit_for(handshake: str, address: Address) -> Address:
    """The alternative of `address` that a flock with `handshake` dials as it stands."""
    fit = address.for_dialling({"net"}, {handshake})
    step = fit.handshake
    if step is not None and step.data and (len(step.data) > 1 or step.key is None):
        raise AddressError(f"{handshake} takes one key at most, not {step}")
    return fit


def check_kinds(
    limits: Limits, handshake: str, host: str | None, public_sources: Collection[str]
) -> None:
    """Raise `TypeError` for options of a flock that are not what they should be."""
    if not isinstance(limits, Limits):
        raise TypeError(f"limits are Limits, not {type(limits).__name__}")
    for name, text in (("handshake", handshake), ("host", host)):
        if not isinstance(text, str | None):
            raise TypeError(f"{name} is text, not {type(text).__name__}")
    # The letters of a name that stands alone would be taken for names.
    if isinstance(public_sources, (str, bytes)) or not isinstance(public_sources, Collection):
        raise TypeError(f"public_sources are names of sources, not {public_sources!r}")
    if not all(isinstance(source, str) for source in public_sources):
        raise TypeError("public_sources are names of sources, which are text")


def check_options(
    *,
    id: bytes | None,  # noqa: A002 - the original's option
    handshake: str,
    max_connections: int,
    hub: Hub | None,
    key_pair: KeyPair | None,
) -> None:
    """Refuse what no flock can work with: `UsageError`, `TypeError` for another type."""
    if not _is_number(max_connections):
        raise TypeError(f"max_connections is a number, not {type(max_connections).__name__}")
    if max_connections < 0:
        raise UsageError(f"max_connections is a number from 0 (no limit) on, not {max_connections}")
    if hub is not None and key_pair is not None:
        raise UsageError("key_pair cannot be given beside hub, which proves its own")
    if id is None:
        return
    if not isinstance(id, (bytes, bytearray, memoryview)):
        raise TypeError(f"an id is bytes, not {type(id).__name__}")
    if handshake == "plain" and not 1 <= len(id) <= MAX_ID_SIZE:
        raise UsageError(f"a plain id has 1 to {MAX_ID_SIZE} bytes, not {len(id)}")


def _is_number(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
