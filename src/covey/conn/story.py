"""Why things went as they did: a bounded history per peer, told as a `Story`.

The hub writes what it dials, refuses, opens and loses; the layers above add their own lines (found
where, staged, banned, retry at). Peers are named by address text or by key, lines are data first.
"""

from __future__ import annotations

import datetime
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from covey.address import Address
from covey.conn.advice import advice_for
from covey.errors import ConnectError
from covey.limits import Limits
from covey.peer_type import network_of

Peer = str | Address | bytes
"""A peer's name: an address (its text or object), or a key of 32 bytes."""
STRANGER_LINES = 16
"""Lines kept of a peer that merely came or was found: one round of attempts, to the last."""
MAX_TEXT = 512
"""Characters kept of the text of a line; errors may quote what a peer sent."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is remembered of an error: the name of its class, its text, its errno name or None.

    The error itself is not kept: its traceback holds on to the whole connection that it ended.
    """

    kind: str
    text: str
    code: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """What `error` says."""
        code = error.code if isinstance(error, ConnectError) else None
        return cls(type(error).__name__, str(error)[:MAX_TEXT], code)


@dataclass(frozen=True, slots=True)
class StoryLine:
    """One thing that happened: `at` in milliseconds since 1970, `step` a short fixed name.

    `reason` is the short name of why, `text` says all of it in words, `fields` holds its data;
    the field `error` is a `Failure`, or absent.
    """

    at: float
    step: str
    text: str
    address: str | None = None
    reason: str | None = None
    fields: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __str__(self) -> str:
        when = datetime.datetime.fromtimestamp(self.at / 1000, datetime.UTC)
        return f"{when:%H:%M:%S}.{when.microsecond // 1000:03d} {self.text}"


@dataclass(frozen=True, slots=True)
class Story:
    """What is remembered of a peer, oldest line first.

    `forgotten` lines did not fit the bound. `next_step` says what will happen by itself, `advice`
    what the user can do; each is None when there is nothing to say.
    """

    peer: str
    key: bytes | None
    addresses: tuple[str, ...]
    lines: tuple[StoryLine, ...]
    forgotten: int = 0
    state: str | None = None
    next_step: str | None = None
    advice: str | None = None

    def __str__(self) -> str:
        told = [f"{self.peer}: {self.state or 'not connected'}"]
        told += [f"  tried under {name}" for name in self.addresses if name != self.peer]
        if self.forgotten:
            told.append(f"  ({self.forgotten} earlier lines are forgotten)")
        told += [f"  {line}" for line in self.lines]
        if not self.lines:
            told.append("  nothing is known of this peer")
        if self.next_step:
            told.append(f"  next: {self.next_step}")
        if self.advice:
            told.append(f"  you can: {self.advice}")
        return "\n".join(told)


class _Pages:
    """The lines of one address or key; `error` is what the newest is about, not kept alive."""

    __slots__ = ("advice", "error", "forgotten", "key", "lines")

    def __init__(self) -> None:
        self.lines: deque[tuple[int, StoryLine]] = deque()
        self.forgotten = 0
        self.key: bytes | None = None
        self.advice: str | None = None
        self.error: weakref.ref[BaseException] | None = None

    def add(self, order: int, line: StoryLine, limit: int) -> None:
        """Add a line; the oldest goes when there are more than `limit`."""
        self.lines.append((order, line))
        if len(self.lines) > limit:
            self.lines.popleft()
            self.forgotten += 1


class History:
    """Lines per peer: at most `limits.history` each, at most `limits.max_stories` peers.

    Peers that this side chose (`stranger=False`) and those that merely came or were found are
    bounded apart, so that a crowd of strangers cannot wash out the story of a peer that the user
    asked for; of strangers at most `STRANGER_LINES` lines are kept. Nothing live is kept: no error,
    no connection.
    """

    def __init__(self, *, wall_clock: Callable[[], float], limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._lines = max(1, limits.history)
        self._peers = max(1, limits.max_stories)
        self._wall_clock = wall_clock
        self._order = 0
        self._chosen: OrderedDict[str, _Pages] = OrderedDict()
        self._strangers: OrderedDict[str, _Pages] = OrderedDict()
        self._by_key: dict[bytes, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._chosen) + len(self._strangers)

    def tell(
        self,
        peer: Peer,
        step: str,
        text: str,
        *,
        key: bytes | None = None,
        reason: str | None = None,
        error: BaseException | None = None,
        stranger: bool = False,
        **fields: Any,
    ) -> None:
        """Add a line to `peer`; `key` files it under that key too, `error` sets the advice."""
        name = _name(peer)
        pages = self._pages(name, stranger)
        self._link(name, pages, peer if isinstance(peer, bytes) else key)
        self._order += 1
        address = None if isinstance(peer, bytes) else name
        if error is not None:
            fields = {"error": Failure.of(error), **fields}
        line = StoryLine(
            self._wall_clock(), step, text[:MAX_TEXT], address, reason, MappingProxyType(fields)
        )
        chosen = name in self._chosen
        pages.add(self._order, line, self._lines if chosen else min(self._lines, STRANGER_LINES))
        pages.advice = advice_for(error) if error is not None else None
        pages.error = _weak(error)

    def story(self, peer: Peer, *, state: str | None = None, next_step: str | None = None) -> Story:
        """All that is remembered of `peer`; asked by key, the lines of all its addresses."""
        name = _name(peer)
        key = peer if isinstance(peer, bytes) else None
        names = [name] if key is None else [*self._by_key.get(key, ())]
        found = [(name, pages) for name in names if (pages := self._find(name)) is not None]
        if key is None and found:
            key = found[0][1].key
        rows = sorted(row for _, pages in found for row in pages.lines)
        newest = max((pages for _, pages in found), key=lambda pages: pages.lines[-1], default=None)
        return Story(
            peer=name,
            key=key,
            addresses=tuple(name for name, pages in found if pages.lines[-1][1].address),
            lines=tuple(line for _, line in rows),
            forgotten=sum(pages.forgotten for _, pages in found),
            state=state,
            next_step=next_step,
            advice=newest.advice if newest is not None and state is None else None,
        )

    def has_told(self, peer: Peer, error: BaseException) -> bool:
        """Whether the newest line of `peer` is about this very error."""
        pages = self._find(_name(peer))
        if pages is None:
            return False
        if pages.error is not None:
            return pages.error() is error
        return pages.lines[-1][1].fields.get("error") == Failure.of(error)

    def _find(self, name: str) -> _Pages | None:
        return self._chosen.get(name) or self._strangers.get(name)

    def _pages(self, name: str, stranger: bool) -> _Pages:
        pages = self._chosen.get(name)
        if pages is not None:
            self._chosen.move_to_end(name)
            return pages
        pages = self._strangers.pop(name, None) or _Pages()
        shelf = self._strangers if stranger else self._chosen
        shelf[name] = pages
        if len(shelf) > self._peers:
            gone, old = shelf.popitem(last=False)
            self._unlink(gone, old)
        return pages

    def _link(self, name: str, pages: _Pages, key: bytes | None) -> None:
        if key is not None and pages.key != key:
            self._unlink(name, pages)
            pages.key = key
            self._by_key.setdefault(key, {})[name] = None

    def _unlink(self, name: str, pages: _Pages) -> None:
        if pages.key is not None and (names := self._by_key.get(pages.key)) is not None:
            names.pop(name, None)
            if not names:
                del self._by_key[pages.key]


def host_story(host: str) -> str:
    """The name of the story of those who came from `host` and were not let in: of its network."""
    return f"net:{network_of(host)}"


def _name(peer: Peer) -> str:
    return peer.hex() if isinstance(peer, bytes) else str(peer)


def _weak(error: BaseException | None) -> weakref.ref[BaseException] | None:
    """A reference that keeps nothing alive; None where there can be none (built-in errors)."""
    try:
        return weakref.ref(error) if error is not None else None
    except TypeError:
        return None
