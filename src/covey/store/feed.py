"""A log as its users have it: appended to, read, followed, cut, verified, exchanged.

Source: hypercore 11.37.1, `index.js`; its names, in Python's spelling.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from covey.errors import BlockNotAvailable, FrozenError, UsageError
from covey.feed import tree
from covey.feed.hashes import tree_hash
from covey.feed.messages import MAX_BLOCK
from covey.feed.replication_tickets import Ticket
from covey.net.extensions import OnError
from covey.store.downloads import Download, runs_of
from covey.store.extensions import Extension, OnMessage
from covey.store.feed_reading import (
    Follower,
    RangeReader,
    check_range,
    read_blocks,
    read_bytes,
    read_live,
)
from covey.store.feed_session import FeedSession, Options, check_timeout
from covey.store.verification import Verification
from covey.wire.codec import Codec
from covey.wire.session import Buffer

_UNSET: Any = object()
LAST_BLOCK = 1 << 52
"""No log has so many blocks."""


class AppendResult(NamedTuple):
    """The log after an append: its blocks, and the bytes in them."""

    length: int
    byte_length: int


class Feed(FeedSession):
    """One user's hold on a log; made by `Basestore.get`. An async context manager.

    Blocks are bytes, numbered from 0. What is not here is brought by peers, verified against the
    writer's signature and kept. Every call raises `ClosedError` after `close`, and `StoreError`
    when the store fails, those too that wait for blocks then.
    """

    # Writing

    async def append(
        self, blocks: Buffer | Sequence[Buffer], *, signature: bytes | None = None
    ) -> AppendResult:
        """Add one block, or several at once: all of them or, when this raises, none.

        They are on disk when this returns. `signature` is that of the new head where more than one
        signer is needed (`Authority.assemble`). Raises `UsageError` when the log cannot be written
        here, or a block is not bytes or has more than 15 MiB.
        """
        self._check_writable("append")
        stored = self._stored_form(blocks)
        if stored:
            self._log.append(stored, signature=signature)
            self._opened.touch()
        return AppendResult(self.length, self.byte_length)

    def plan(self, blocks: Buffer | Sequence[Buffer]) -> tree.Batch:
        """The head that an append of these blocks would lead to: what several signers sign.

        Each signs its `roots` and `length` (`Authority.sign_part`).
        """
        self._check_open()
        return self._log.plan(self._stored_form(blocks))

    async def truncate(
        self, length: int, *, fork: int | None = None, signature: bytes | None = None
    ) -> None:
        """Cut the log to its first `length` blocks; the history goes on under a higher `fork`.

        Readers that have the rest drop it. Raises `UsageError` for a length above the present one,
        a fork that is not higher, and a log that cannot be written here; `BlockNotAvailable` where
        the tree of the first `length` blocks is not here: a writer that has its log from readers
        downloads them before.
        """
        self._check_writable("truncate")
        if not isinstance(length, int) or not 0 <= length <= self._log.length:
            raise UsageError(f"a log of {self._log.length} blocks cannot be cut to {length!r}")
        if fork is not None and not isinstance(fork, int):
            raise UsageError(f"a fork is a number, not {fork!r}")
        self._log.truncate(length, fork=fork, signature=signature)
        self._opened.touch()

    async def clear(self, start: int, end: int | None = None) -> None:
        """Forget the blocks `start` to before `end` (without it one block) here, to save space.

        They stay part of the log, and peers can bring them again: to who asks now, not to a
        download or `live` that had them before. `UsageError` in a snapshot.
        """
        self._check_open()
        if self._fixed is not None:
            raise UsageError("a snapshot does not change: clear the log itself")
        stop = _end_of(start, end)
        self._log.clear(start, stop)
        self._opened.touch()

    async def set_user_data(self, name: str, value: bytes | None) -> None:
        """Keep `value` with the log in this store, under `name`; None takes it away.

        It is not part of the log: no peer gets it.
        """
        self._check_open()
        if value is not None and not isinstance(value, bytes | bytearray | memoryview):
            raise UsageError(f"user data is made of bytes, not {type(value).__name__}")
        self._log.set_user_data(name, None if value is None else bytes(value))

    async def get_user_data(self, name: str) -> bytes | None:
        """What is kept under `name`; None when nothing is."""
        self._check_open()
        return self._log.user_data(name)

    # Reading

    async def get(self, index: int, *, timeout: float | None = _UNSET, wait: bool = True) -> bytes:
        """Block `index`; one that is not here is fetched, also one that is yet to be written.

        `timeout` in seconds, None: no end; without it that of the session. Raises `FeedTimeout`,
        and `BlockNotAvailable` when it is not here and `wait` is False, or in a snapshot where it
        never will be.
        """
        self._check_open()
        self._check_index(index)
        stored = self._log.block(index)
        if stored is None:
            if not wait:
                raise BlockNotAvailable(f"block {index} is not here")
            limit = self._options.timeout if timeout is _UNSET else check_timeout(timeout)
            stored = await self._ask(
                lambda done: self._opened.ask(
                    lambda replicator: replicator.want_block(index, priority=1, done=done)
                ),
                f"block {index}",
                limit,
                keeps=index + 1,
            )
        return self._plain(index, stored)

    async def has(self, start: int, end: int | None = None) -> bool:
        """Whether block `start`, or every block from it to before `end`, is here."""
        self._check_open()
        stop = _end_of(start, end)
        if self._fixed is not None and start < stop and stop > self._fixed.shared:
            return False
        return self._log.bitfield.count(start, stop) == stop - start

    async def seek(self, offset: int, *, timeout: float | None = _UNSET) -> tuple[int, int]:
        """The block that holds byte `offset`, and where in it; the end of the log is a place too.

        Peers are asked where the sizes are not known here. Raises `FeedTimeout`, and `UsageError`
        for an offset past the end.
        """
        self._check_open()
        if not isinstance(offset, int) or offset < 0:
            raise UsageError(f"an offset is 0 or more, not {offset!r}")
        if self.length and offset > self.byte_length:
            raise UsageError(f"the log has {self.byte_length} bytes, none number {offset}")
        fixed = self._fixed
        roots = self._log.roots if fixed is None else fixed.roots
        found = tree.seek(offset, roots, self._log.node, padding=self._padding)
        if fixed is not None and fixed.shared < fixed.length:
            # Nodes below the roots may be those of what came instead: only the rest is sure.
            found = self._log.seek(offset, padding=self._padding)
            self._check_kept(fixed.length if found is None else found[0] + 1)
        if found is None:
            limit = self._options.timeout if timeout is _UNSET else check_timeout(timeout)
            padding = self._padding
            found = await self._ask(
                lambda done: self._opened.ask(
                    lambda replicator: replicator.want_seek(offset, padding=padding, done=done)
                ),
                f"byte {offset}",
                limit,
                keeps=0 if fixed is None else fixed.length,
            )
        block, within = found
        return block, within

    def read(
        self,
        start: int = 0,
        end: int | None = None,
        *,
        by: Literal["blocks", "bytes"] = "blocks",
    ) -> AsyncIterator[bytes]:
        """The blocks `start` to before `end`, or the pieces of the bytes of that range.

        Without `end` up to the length that the log has now. What is not here is fetched ahead.
        All of it is of one history: `BlockNotAvailable` when the log is cut meanwhile and blocks of
        the range with it. Raises `FrozenError` for a block that is not here of a frozen log.
        """
        self._check_open()
        if by == "blocks":
            stop = self.length if end is None else end
            check_range(start, stop)
            return read_blocks(self, start, stop, fork=self.fork)
        if by == "bytes":
            stop = self.byte_length if end is None else end
            check_range(start, stop, "bytes")
            return read_bytes(self, start, stop, fork=self.fork)
        raise UsageError(f"a log is read by blocks or by bytes, not by {by!r}")

    def live(self, start: int = 0) -> AsyncIterator[bytes]:
        """The blocks from `start` on, then each new one as it comes; ends with the session.

        When the log is cut below what was given out already, the blocks that come in place of the
        old ones follow, from `start` on (`listen` tells of the cut before). A snapshot ends after
        its last block; a frozen log with `FrozenError`.
        """
        self._check_open()
        if not isinstance(start, int) or start < 0:
            raise UsageError(f"blocks are numbered from 0, not {start!r}")
        if self._fixed is not None:
            return read_blocks(self, start, max(start, self.length), fork=self.fork)
        return read_live(self, start)

    async def update(self, *, wait: bool | None = None, timeout: float | None = _UNSET) -> bool:
        """Ask the peers for a longer log; whether there is one.

        False when nobody is connected; but with `wait` the first peer is waited for, and without
        a word so while `finding_peers` lasts. Raises `FeedTimeout`.
        """
        self._check_open()
        if self._fixed is not None or self._log.frozen:
            return False
        limit = self._options.timeout if timeout is _UNSET else check_timeout(timeout)
        opened = self._opened
        searching = wait is None and opened.searches > 0
        waiting: list[Callable[[Any], None]] = []

        def ask(done: Callable[[Any], None]) -> Ticket:
            if searching:
                waiting.append(done)
                opened.waiting_updates.add(done)
            return opened.ask(
                lambda replicator: replicator.want_update(wait=searching or bool(wait), done=done)
            )

        try:
            newer: bool = await self._ask(ask, "news of the log", limit)
        finally:
            opened.waiting_updates.difference_update(waiting)
        return newer

    def finding_peers(self) -> Callable[[], None]:
        """Peers are being looked for: until the returned function is called, `update` waits."""
        self._check_open()
        return self._opened.begin_search()

    async def tree_hash(self, length: int | None = None) -> bytes:
        """The 32-byte hash of the first `length` blocks, all without it: equal for equal logs.

        Raises `BlockNotAvailable` when nodes of that tree are not here.
        """
        self._check_open()
        log, fixed = self._log, self._fixed
        wanted = self.length if length is None else length
        if not isinstance(wanted, int) or not 0 <= wanted <= self.length:
            raise UsageError(f"a log of {self.length} blocks has no hash for {wanted!r}")
        if fixed is not None and wanted == fixed.length:
            return tree_hash(fixed.roots)
        self._check_kept(wanted)
        roots = log.roots if wanted == log.length else tree.roots_of(wanted, log.node)
        if roots is None:
            raise BlockNotAvailable(f"the tree of the first {wanted} blocks is not here")
        return tree_hash(roots)

    # Longer work

    def download(
        self,
        start: int = 0,
        end: int | None = None,
        *,
        blocks: Iterable[int] | None = None,
        linear: bool = False,
    ) -> Download:
        """Fetch the blocks `start` to before `end`, or those in `blocks`, and keep them.

        Without `end` up to the length that the log has now, when it is not empty; -1, or an empty
        log, means without an end: what is appended is fetched too, until `cancel`. `linear`: in
        order, else at random, so that several readers have different blocks to give each other.
        """
        self._check_open()
        if blocks is not None:
            parts = runs_of(_checked_numbers(blocks))
        else:
            stop = (self.length or -1) if end is None else end
            parts = [(start, None if stop == -1 else stop)]
        for first, last in parts:
            check_range(first, LAST_BLOCK if last is None else last)
        download = Download(self._opened, parts, linear=linear, on_end=self._downloads.discard)
        if not download.finished:
            self._downloads.add(download)
        return download

    def verify(self) -> Verification:
        """Rehash every block that is here against the signature; see `Verification`.

        `BlockNotAvailable` in a snapshot some of whose blocks were replaced.
        """
        self._check_open()
        self._check_kept(self.length)
        self._opened.flush()
        verification = Verification(
            self._log,
            self._opened.host.tasks,
            length=self.length,
            fork=self.fork,
            on_end=self._verifications.discard,
        )
        self._verifications.add(verification)
        return verification

    def register_extension(
        self,
        name: str,
        *,
        encoding: str | Codec[Any] = "binary",
        on_message: OnMessage | None = None,
        on_error: OnError | None = None,
    ) -> Extension:
        """Exchange messages of an application's own with the peers of the log.

        `encoding` is `binary`, `utf-8`, `json` or a codec. `on_message(message, peer)` gets what
        arrives; when it is a coroutine function the next message of that peer waits for it.
        `on_error(error)` gets what does not decode, which is dropped otherwise. Raises `UsageError`
        when the name is taken, or has not 1 to 4,096 bytes.
        """
        self._check_open()
        extension = self._opened.extensions.register(
            name, encoding=encoding, on_message=on_message, on_error=on_error
        )
        self._extensions.append(extension)
        return extension

    # Further sessions

    def session(
        self,
        *,
        writable: bool | None = None,
        active: bool | None = None,
        snapshot: bool = False,
        timeout: float | None = _UNSET,
    ) -> Feed:
        """Another session of the same log, closed on its own; what is not said is as here.

        That of a snapshot is one of the same state.
        """
        self._check_open()
        mine = self._options
        options = Options(
            writable=mine.writable if writable is None else writable and mine.writable,
            active=self.active if active is None else active,
            snapshot=snapshot or self.is_snapshot,
            encryption_key=mine.encryption_key,
            timeout=mine.timeout if timeout is _UNSET else check_timeout(timeout),
            linger=mine.linger,
        )
        made = self._owner.new_session(self._opened, options)
        if self._fixed is not None:
            made._fixed = replace(self._fixed)
        return made

    def snapshot(self) -> Feed:
        """A session whose length and fork stay what they are now, or here; read only.

        Blocks that a truncation replaced since can no longer be read in it.
        """
        return self.session(snapshot=True, writable=False)

    # For `live` and `read`

    def follow(self, follower: Follower | RangeReader) -> None:
        """Tell `follower` when the log is cut."""
        self._cuts.add(follower.cut)

    def unfollow(self, follower: Follower | RangeReader) -> None:
        """Tell it no more."""
        self._cuts.discard(follower.cut)

    async def get_next(self, follower: Follower | RangeReader) -> bytes | None:
        """The block at the place of `follower`; None when the log was cut before it came."""
        self._check_open()
        index = follower.position
        self._check_index(index)
        stored = self._log.block(index)
        if stored is None:

            def ask(done: Callable[[Any], None]) -> Ticket:
                follower.wake = done
                return self._opened.ask(
                    lambda replicator: replicator.want_block(index, priority=1, done=done)
                )

            try:
                limit = None if follower.endless else self._options.timeout
                stored = await self._ask(ask, f"block {index}", limit, keeps=index + 1)
            finally:
                follower.wake = None
            if stored is None:
                return None
        return self._plain(index, stored)

    # Inside

    def _stored_form(self, blocks: Buffer | Sequence[Buffer]) -> list[bytes]:
        several = [blocks] if isinstance(blocks, bytes | bytearray | memoryview) else blocks
        if not isinstance(several, Iterable):
            raise UsageError(f"a block is made of bytes, not {type(blocks).__name__}")
        most = MAX_BLOCK - self._padding
        checked = [_checked_block(block, most) for block in several]
        cipher = self._own_cipher()
        if cipher is None:
            return checked
        first, fork = self._log.length, self._log.fork
        return [cipher.encrypt(index, fork, block) for index, block in enumerate(checked, first)]

    def _plain(self, index: int, stored: bytes) -> bytes:
        cipher = self._own_cipher()
        return stored if cipher is None else cipher.decrypt(index, stored)

    def _check_writable(self, what: str) -> None:
        self._check_open()
        if self.writable:
            return
        prologue = self._log.authority.prologue
        may_fill = prologue is not None and self._log.length < prologue.length
        if what == "append" and may_fill and self._options.writable and self._fixed is None:
            return  # what the key itself vouches for needs no signer
        if self._log.frozen:
            raise FrozenError(f"cannot {what}: the log {self.key.hex()} is frozen by a conflict")
        if self._fixed is not None:
            why = "a snapshot does not change"
        elif not self._options.writable:
            why = "this session only reads"
        else:
            why = "its secret key is not here"
        raise UsageError(f"cannot {what} to the log {self.key.hex()}: {why}")


def _checked_block(block: Any, most: int) -> bytes:
    if not isinstance(block, bytes | bytearray | memoryview):
        raise UsageError(f"a block is made of bytes, not {type(block).__name__}")
    size = memoryview(block).nbytes
    if size > most:
        what = "a block" if most == MAX_BLOCK else "a block of an encrypted log"
        raise UsageError(f"{what} has at most {most} bytes, not {size}")
    return bytes(block)


def _end_of(start: int, end: int | None) -> int:
    """Where a range ends that is one block when no end was given."""
    check_range(start, start if end is None else end)
    return start + 1 if end is None else end


def _checked_numbers(blocks: Any) -> list[int]:
    if not isinstance(blocks, Iterable):
        raise UsageError(f"which blocks: their numbers, not {blocks!r}")
    numbers = list(blocks)
    for number in numbers:
        if not isinstance(number, int):
            raise UsageError(f"a block has a number from 0 on, not {number!r}")
    return numbers
