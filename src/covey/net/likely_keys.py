"""Whose key is likely to be proven, so that a handshake may multiply by it while it waits."""

from __future__ import annotations

from covey.host_port import HostPort

REMEMBERED_KEYS = 256
"""Places whose last key is kept: 32 bytes each, and who comes after that many loses 90 µs."""
ANY_PORT = 0
"""The port of who called us: the next call comes from another one."""


class LikelyKeys:
    """The last key that was proven in a place: what was dialled, or the host that called.

    A guess costs one multiplication when it is wrong. So a caller's key is handed out once for
    each handshake that proved it: who only begins handshakes cannot have us guess again and again.
    """

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: dict[HostPort, bytes] = {}  # the newest are last

    def dialled(self, host: str, port: int) -> bytes | None:
        """The key to expect of who answers there, if there is one."""
        return self._keys.get((host, port))

    def calling(self, host: str) -> bytes | None:
        """The key to expect of who calls from `host`; not again until it was proven again."""
        return self._keys.pop((host, ANY_PORT), None)

    def proven(self, host: str, key: bytes, *, port: int = ANY_PORT) -> None:
        """Keep the key that was proven there, and forget the oldest where there are too many."""
        self._keys.pop((host, port), None)
        self._keys[host, port] = key
        if len(self._keys) > REMEMBERED_KEYS:
            del self._keys[next(iter(self._keys))]
