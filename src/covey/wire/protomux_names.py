"""Who uses which channel name, and whom to ask when the remote opens one.

Source: protomux 3.12.1; `protomux.md` sections 3 and 4.
"""

# `id` is the name that protomux uses.
# ruff: noqa: A002

from __future__ import annotations

from typing import Any

from covey.errors import UsageError
from covey.wire.protomux_channel import Name, NameStatus


class NameTable:
    """What is known of the names in use, and the pair callbacks. Unused names are forgotten."""

    __slots__ = ("_callbacks", "_max_name", "_status")

    def __init__(self, *, max_name: int) -> None:
        self._max_name = max_name
        self._status: dict[Name, NameStatus] = {}
        self._callbacks: dict[Name, Any] = {}

    def __len__(self) -> int:
        return len(self._status)

    def checked(self, protocol: str, id: bytes | None) -> Name:
        """The name of our caller's protocol and id; `UsageError` when one is too long."""
        if len(protocol.encode()) > self._max_name or len(id or b"") > self._max_name:
            raise UsageError(f"a protocol name or channel id has at most {self._max_name} bytes")
        return protocol, bytes(id or b"")

    def get(self, name: Name) -> NameStatus | None:
        """What is known of `name`, if it is in use."""
        return self._status.get(name)

    def use(self, name: Name, aliases: tuple[str, ...] = ()) -> NameStatus:
        """What is known of `name`. Aliases count only where nothing was known yet."""
        status = self._status.get(name)
        if status is None:
            status = NameStatus()
            for known in (name, *((alias, name[1]) for alias in aliases)):
                if known not in self._status:
                    self._status[known] = status
                    status.names.append(known)
        return status

    def drop_unused(self, status: NameStatus) -> None:
        """Forget the names of `status` when nothing is left to be known."""
        if status.unused:
            for name in status.names:
                if self._status.get(name) is status:
                    del self._status[name]

    def pair(self, name: Name, callback: Any) -> None:
        """Remember whom to ask for `name`; one without id stands for every id."""
        self._callbacks[name] = callback

    def unpair(self, name: Name) -> None:
        """Forget whom to ask for `name`."""
        self._callbacks.pop(name, None)

    def callback_for(self, name: Name) -> Any:
        """Whom to ask for `name`: the exact name goes first. None: nobody."""
        return self._callbacks.get(name) or self._callbacks.get((name[0], b""))

    def clear(self) -> None:
        """Forget everything."""
        self._status.clear()
        self._callbacks.clear()
