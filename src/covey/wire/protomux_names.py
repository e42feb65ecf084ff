"""Who uses which channel name and number, and whom to ask when the remote opens a name.

Source: protomux 3.12.1; `protomux.md` sections 3 and 4.
"""

# `id` is the name that protomux uses.
# ruff: noqa: A002

from __future__ import annotations

from typing import Any

from covey.errors import UsageError
from covey.wire.protomux_channel import ChannelCore, Name, NameStatus


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

    def paired(self, name: Name) -> Any:
        """The callback of exactly that name, or None."""
        return self._callbacks.get(name)

    def callback_for(self, name: Name) -> Any:
        """Whom to ask for `name`: the exact name goes first. None: nobody."""
        return self._callbacks.get(name) or self._callbacks.get((name[0], b""))

    def clear(self) -> None:
        """Forget everything."""
        self._status.clear()
        self._callbacks.clear()


class NumberTable:
    """Our numbers, which begin with 1, and the channels that have one."""

    __slots__ = ("_channels", "_free", "_next")

    def __init__(self) -> None:
        self._channels: dict[int, ChannelCore] = {}
        self._free: list[int] = []
        self._next = 1

    def __len__(self) -> int:
        return len(self._channels)

    def take(self, channel: ChannelCore) -> int:
        """Give `channel` a number: the one freed last, else the first that was never used."""
        if self._free:
            number = self._free.pop()
        else:
            number = self._next
            self._next += 1
        self._channels[number] = channel
        return number

    def free(self, number: int) -> None:
        """The number may be given to another channel; one that nobody has stays as it is."""
        if self._channels.pop(number, None) is not None:
            self._free.append(number)

    def in_order(self) -> list[ChannelCore]:
        """The channels, by number."""
        return [self._channels[number] for number in sorted(self._channels)]

    def clear(self) -> None:
        """Forget all channels. Their numbers stay taken: this comes with the end of the stream."""
        self._channels.clear()
