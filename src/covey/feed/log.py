"""The state of one signed log: its head, its tree, the blocks held, and how they change.

Every change is one commit: first it is stored, then it is the state in memory, then it is told
(`storage.md` section 1). Blocks that peers sent are staged first, so that many share a commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from covey.errors import (
    BlockNotAvailable,
    CoveyError,
    FrozenError,
    StoreError,
    UsageError,
    VerifyError,
)
from covey.feed import tree
from covey.feed.data_message import MAX_BLOCK
from covey.feed.hashes import Node, tree_hash
from covey.feed.log_changes import LAST, Changes, Head, Hints
from covey.feed.log_cover import idle_nodes
from covey.feed.log_events import (
    Appended,
    Cleared,
    Dropped,
    Frozen,
    LogEvent,
    ManifestLearned,
    Stored,
    Truncated,
)
from covey.feed.log_pages import (
    check_order,
    first_unset,
    put_pages,
    with_blocks,
    with_range,
    without_range,
)
from covey.feed.log_staging import Staging, Writing
from covey.feed.log_state import LogState
from covey.feed.manifest import Manifest
from covey.feed.signatures import Authority
from covey.feed.verify import NewHead, Verified
from covey.wire.session import Buffer

MAX_STAGED_BLOCKS: Final = 1024
"""Blocks staged at most: `accept` flushes by itself then, whatever its caller forgot."""
MAX_STAGED_BYTES: Final = 3 << 23
"""Bytes of staged blocks at most; a block that is larger is flushed at once."""
MAX_STAGED_NODES: Final = 1 << 14
"""Nodes staged at most: answers to hash and seek requests bring no blocks."""


class Log(LogState):
    """One log, and all ways in which it may change; made as `LogState` is.

    All writes raise `StoreError` when the store fails, and then nothing has changed, and
    `FrozenError` for a log that is frozen.
    """

    __slots__ = ()

    # Our own changes

    def plan(self, blocks: Iterable[Buffer]) -> tree.Batch:
        """The head that `append` of these blocks would have: what several signers have to sign."""
        return self._grow(_contents(blocks))

    def append(self, blocks: Iterable[Buffer], *, signature: bytes | None = None) -> int:
        """Add blocks and sign; gives the new length.

        Where several must sign, `signature` is theirs over the head of `plan`. A prologue is
        appended whole, and needs none. Raises `UsageError` when nobody here may sign, or for more
        than `MAX_BLOCK` bytes; `VerifyError` when the signature or the prologue is wrong.
        """
        self._begin_change()
        contents = _contents(blocks)
        if not contents:
            return self.length
        batch = self._grow(contents)
        start, end = self.length, batch.length
        head = self._signed(batch.roots, end, self.fork, signature)
        pages = with_range(self.bitfield, start, end)
        contiguous = end if self.contiguous_length == start else self.contiguous_length
        self._commit(
            Changes(
                blocks=list(zip(range(start, end), contents, strict=True)),
                nodes=batch.nodes,
                head=head,
                pages=pages,
                hints=self._new_hints(contiguous),
            )
        )
        self._set_head(head, batch.roots)
        self._cache.add(batch.nodes)
        self._put_pages(pages, contiguous)
        self._sound.set_range(start, end, True)
        self._tell(Appended(end, head.fork, start), Stored(list(range(start, end))))
        return end

    def truncate(
        self, length: int, *, fork: int | None = None, signature: bytes | None = None
    ) -> None:
        """Cut the log to `length` blocks, on a new fork (the next one when None), and sign that.

        What is staged is flushed first. Raises `UsageError` for a length beyond the present one or
        inside a prologue, for a fork that is not new, and when nobody here may sign;
        `BlockNotAvailable` when the nodes of the shorter log are not here, which its blocks bring.
        """
        self._begin_change()
        new_fork = self.fork + 1 if fork is None else fork
        prologue = self.authority.prologue
        if not 0 <= length <= self.length or (prologue is not None and length < prologue.length):
            raise UsageError(f"a log of {self.length} blocks cannot be cut to {length}")
        if not self.fork < new_fork < LAST:
            raise UsageError(f"fork {new_fork} is not new: this is {self.fork}")
        if signature is None and not self.writable:
            raise UsageError(f"the log {self.key.hex()} is only read here: nobody signs the cut")
        self.flush()
        roots = tree.roots_of(length, self.node)
        if roots is None:
            raise BlockNotAvailable(
                f"the tree of the first {length} blocks is not here: download them before"
            )
        self._rewrite(self._signed(roots, length, new_fork, signature), roots, (), length)

    def clear(self, start: int, end: int, *, keep_tree: bool | None = None) -> int:
        """Let go of the blocks from `start` to before `end`; the head stays. Gives their number.

        Nodes that no block held or `coming` needs go too, unless `keep_tree`. None keeps them where
        the log is `writable`: only with them can a writer prove its head to readers of older ones.
        """
        self._begin_change()
        check_order(start, end)
        end = min(end, self.length)
        self.flush()
        count = self.bitfield.count(start, end)
        if not count:
            return 0
        keep = self.writable if keep_tree is None else keep_tree
        idle = [] if keep else idle_nodes(self.bitfield, start, end, self.length, self.coming())
        held = list(self.bitfield.ranges(start, end))
        pages, emptied = without_range(self.bitfield, start, end)
        contiguous = min(self.contiguous_length, start)
        self._commit(
            Changes(
                deleted_blocks=[(start, end)],
                deleted_nodes=idle,
                deleted_pages=emptied,
                pages=pages,
                hints=self._new_hints(contiguous),
            )
        )
        self._cache.clear()
        self._revision += 1
        self.bitfield.set_range(start, end, False)
        self._sound.set_range(start, end, False)
        self._put_pages({}, contiguous)
        self._tell(Cleared(start, end, held, idle))
        return count

    def set_user_data(self, name: str, value: bytes | None) -> None:
        """Keep `value` with the log under `name`; None takes it away. Frozen logs allow it too."""
        self._settle()
        self._commit(Changes(user_data={name: value}))

    def freeze(self, *, length: int, fork: int) -> None:
        """Take no more writes for ever: two signed trees of this length and fork were seen.

        What is staged is dropped. Nothing happens when it is frozen already.
        """
        self._settle()
        if self.frozen:
            return
        self._commit(Changes(frozen=True))
        self.frozen = True
        self._staging = Staging()
        self._tell(Frozen(length, fork))

    # What peers sent

    def accept(self, verified: Verified) -> None:
        """Take what `verify` found true of the present state, with nothing in between.

        Without an upgrade or a manifest it is staged: `node` and `block` show it, `has` only after
        `flush`. With one, all that is staged is flushed together with it. Raises as `flush`, and
        `UsageError` for an upgrade that leads nowhere from here. After an error nothing of
        `verified` is here, and its block has to be fetched again.
        """
        nodes, block, upgrade, manifest = verified[:4]
        if (upgrade is not None or manifest is not None) and (failure := self._settle()):
            raise StoreError("what the answer builds on could not be stored") from failure
        self._check_open()
        if upgrade is not None and (upgrade.fork != self.fork or upgrade.length <= self.length):
            raise UsageError(
                f"an upgrade to {upgrade.length} blocks on fork {upgrade.fork}, "
                f"this log has {self.length} on fork {self.fork}"
            )
        staging, writing = self._staging, self._writing
        staging.add_nodes(nodes)
        if (
            block is not None
            and not self.bitfield.get(block[0])
            and not (writing is not None and block[0] in writing.staged.blocks)
        ):
            staging.add_block(*block)
        if (
            upgrade is not None
            or manifest is not None
            or staging.size >= MAX_STAGED_BYTES
            or len(staging.blocks) >= MAX_STAGED_BLOCKS
            or len(staging.nodes) >= MAX_STAGED_NODES
        ):
            self._flush(upgrade, manifest)

    def flush(self) -> int:
        """Store what is staged, in one commit; gives the number of blocks that are new.

        When the store fails, what was staged is dropped: `Dropped` tells which blocks have to be
        fetched again, and `StoreError` is raised.
        """
        self._settle()
        return self._flush(None, None) if self._staging else 0

    def begin_flush(self, settle: Callable[[], object]) -> Callable[[], None] | None:
        """Begin to store what is staged; None when nothing is.

        The caller runs what this returns once, in any thread, and tells `end_flush` how it ended.
        Until then the blocks are staged as before, and others may be staged beside them. Any other
        change of the log calls `settle` first, which has to wait for that and call `end_flush`.
        Raises as `flush`.
        """
        self._settle()
        if not self._staging:
            return None
        writing = self._take_staged()
        self._check_trust(writing)
        writing.settle = settle
        self._writing = writing
        return partial(self._records.commit, writing.changes)

    def end_flush(self, error: BaseException | None) -> int:
        """What `begin_flush` returned has ended, with `error` if it raised one; as `flush`.

        After an error what was staged meanwhile is dropped too: it may need the nodes that went.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            raise UsageError("no flush was begun")
        if error is None:
            return self._flushed(writing)
        writing.failure = error
        if not isinstance(error, CoveyError):
            self._doubtful = True
            raise error
        staged, self._staging = self._staging, Staging()
        self._drop(sorted({*writing.blocks, *staged.blocks}), error)
        raise error

    def reorg(
        self,
        head: NewHead,
        nodes: Sequence[Node],
        shared: int,
        *,
        manifest: Manifest | None = None,
    ) -> None:
        """Go over to a higher fork that was verified, of which the first `shared` blocks are ours.

        `nodes` are those proven of its tree. What is staged is flushed first. Raises `UsageError`
        for a fork that is not higher, or when more is shared than there is; `VerifyError` for a
        head that is all prologue: nobody has signed its fork, so anybody may have made it up.
        """
        self._begin_change()
        prologue = self.authority.prologue if manifest is None else manifest.prologue
        if prologue is not None and head.length <= prologue.length:
            raise VerifyError(f"fork {head.fork} of {head.length} blocks is not signed by anyone")
        if head.fork <= self.fork or not 0 <= shared <= min(self.length, head.length):
            raise UsageError(
                f"fork {head.fork} of {head.length} blocks, {shared} of them shared, "
                f"does not replace {self.length} blocks on fork {self.fork}"
            )
        self.flush()
        self._rewrite(_head_of(head), head.roots, nodes, shared, manifest)

    # The one way to change

    def _check_open(self) -> None:
        if self.frozen:
            raise FrozenError(f"the log {self.key.hex()} is frozen: it was signed in two ways")

    def _begin_change(self) -> None:
        self._settle()
        self._check_open()

    def _settle(self) -> BaseException | None:
        """A flush that goes on beside ends first: one change at a time.

        Gives why it failed, or one that was made when it had ended: what was staged is gone then.
        """
        writing = self._writing
        if writing is None or writing.settle is None:
            return None
        self._lost = None
        writing.settle()
        if self._writing is writing:
            raise UsageError("a flush was begun, and its end was not told")
        return writing.failure or self._lost

    def _check_trust(self, writing: Writing | None = None) -> None:
        """`StoreError` where memory may not be what is stored."""
        if self._doubtful:
            error = StoreError("a write was interrupted: the log has to be opened again")
            if writing is not None:
                self._drop(writing.blocks, error)
            raise error

    def _commit(self, changes: Changes) -> None:
        self._check_trust()
        try:
            self._records.commit(changes)
        except CoveyError:
            raise
        except BaseException:
            # Whether it happened is unknown, so memory may not be what is stored any more.
            self._doubtful = True
            raise
        if changes.hints is not None:
            self._hints = changes.hints

    def _flush(self, upgrade: NewHead | None, manifest: Manifest | None) -> int:
        """Commit what is staged, and a new head and manifest with it."""
        self._settle()
        writing = self._take_staged()
        changes = writing.changes
        try:
            if manifest is not None:
                changes.manifest = manifest
                authority = Authority(self.key, manifest)
            if upgrade is not None:
                changes.head = _head_of(upgrade)
            self._commit(changes)
        except CoveyError as error:
            self._drop(writing.blocks, error)
            raise
        if manifest is not None:
            self.authority = authority
        return self._flushed(writing, upgrade)

    def _take_staged(self) -> Writing:
        """What is staged is so no more; what there is to store of it."""
        staged, self._staging = self._staging, Staging()
        blocks = sorted([item for item in staged.blocks.items() if not self.bitfield.get(item[0])])
        indices = [index for index, _ in blocks]
        pages = with_blocks(self.bitfield, indices)
        contiguous = first_unset(self.bitfield, pages, self.contiguous_length)
        changes = Changes(
            blocks=blocks,
            nodes=list(staged.nodes.values()),
            pages=pages,
            hints=self._new_hints(contiguous),
        )
        return Writing(staged, indices, changes, contiguous)

    def _flushed(self, writing: Writing, upgrade: NewHead | None = None) -> int:
        """It is stored: show it and tell."""
        changes, start = writing.changes, self.length
        if changes.hints is not None:
            self._hints = changes.hints
        self._cache.add(changes.nodes)
        if changes.head is not None and upgrade is not None:
            self._set_head(changes.head, upgrade.roots)
        self._put_pages(changes.pages, writing.contiguous)
        self._tell_flushed(start, writing.blocks, changes.manifest)
        return len(writing.blocks)

    def _drop(self, blocks: list[int], error: CoveyError) -> None:
        self._lost = error
        self._tell(Dropped(blocks, error))

    def _tell_flushed(self, start: int, blocks: list[int], manifest: Manifest | None) -> None:
        if manifest is not None:
            self._tell(ManifestLearned(manifest))
        if self.length > start:
            self._tell(Appended(self.length, self.fork, start))
        if blocks:
            self._tell(Stored(blocks))

    def _rewrite(
        self,
        head: Head,
        roots: Sequence[Node],
        nodes: Iterable[Node],
        shared: int,
        manifest: Manifest | None = None,
    ) -> None:
        """Delete everything from block `shared` on, and put another head and its nodes."""
        authority = self.authority if manifest is None else Authority(self.key, manifest)
        pages, emptied = without_range(self.bitfield, shared, LAST)
        contiguous = min(self.contiguous_length, shared)
        self.remote_contiguous_length = min(self.remote_contiguous_length, shared)
        self._commit(
            Changes(
                deleted_blocks=[(shared, LAST)],
                deleted_nodes=[
                    *((node, node + 1) for node in tree.cut_nodes(shared)),
                    (2 * shared, LAST),
                ],
                deleted_pages=emptied,
                pages=pages,
                nodes=list({node.index: node for node in (*nodes, *roots)}.values()),
                head=head,
                manifest=manifest,
                hints=self._new_hints(contiguous),
            )
        )
        old_length = self.length
        self._cache.clear()
        self._revision += 1
        self.authority = authority
        self._set_head(head, roots)
        self.bitfield.set_range(shared, old_length, False)
        self._sound.set_range(shared, old_length, False)
        self.contiguous_length = contiguous
        if manifest is not None:
            self._tell(ManifestLearned(manifest))
        self._tell(Truncated(shared, head.fork, old_length))
        if head.length > shared:
            self._tell(Appended(head.length, head.fork, shared))

    def _grow(self, contents: Iterable[Buffer]) -> tree.Batch:
        """The tree with more blocks; `VerifyError` when they are not those of the prologue."""
        batch = tree.Batch(self.roots, self.length, self.fork)
        prologue = self.authority.prologue
        for data in contents:
            batch.append(data)
            if prologue is not None and batch.length == prologue.length:
                self.authority.verify(
                    roots=batch.roots, length=batch.length, fork=batch.fork, signature=None
                )
        return batch

    def _signed(
        self, roots: Sequence[Node], length: int, fork: int, signature: bytes | None
    ) -> Head:
        """A new head of ours with its signature, the given one if it is good."""
        authority = self.authority
        prologue = authority.prologue
        if prologue is not None and length <= prologue.length:
            if length < prologue.length:
                raise UsageError(f"a prologue of {prologue.length} blocks is appended whole")
            signature = None
        elif signature is not None:
            if not isinstance(signature, bytes | bytearray | memoryview):
                raise UsageError(f"a signature is bytes, not {type(signature).__name__}")
            signature = bytes(signature)
            authority.verify(roots=roots, length=length, fork=fork, signature=signature)
        elif self.key_pair is None:
            raise UsageError(f"the log {self.key.hex()} is only read here: no key pair signs it")
        else:
            signature = authority.sign(self.key_pair, roots=roots, length=length, fork=fork)
        size = sum([root.size for root in roots])
        return Head(fork, length, size, tree_hash(roots), signature)

    def _put_pages(self, pages: Mapping[int, bytes], contiguous: int) -> None:
        put_pages(self.bitfield, pages)
        self.contiguous_length = contiguous

    def _new_hints(self, contiguous: int) -> Hints | None:
        """Hints to store, None where nothing is new in them."""
        hints = Hints(contiguous, self.remote_contiguous_length)
        return None if hints == self._hints else hints

    def _tell(self, *events: LogEvent) -> None:
        self._teller.tell(*events)


def _contents(blocks: Iterable[Buffer]) -> list[bytes]:
    """The blocks as bytes of their own; `UsageError` for what is none, or too large."""
    if isinstance(blocks, bytes | bytearray | memoryview | str):
        raise UsageError("blocks are appended as a list of bytes, also when there is only one")
    contents = []
    for block in blocks:
        if not isinstance(block, bytes | bytearray | memoryview):
            raise UsageError(f"a block is bytes, not {type(block).__name__}")
        if len(block) > MAX_BLOCK:
            raise UsageError(f"a block has at most {MAX_BLOCK} bytes, not {len(block)}")
        contents.append(bytes(block))
    return contents


def _head_of(head: NewHead) -> Head:
    return Head(head.fork, head.length, head.byte_length, tree_hash(head.roots), head.signature)
