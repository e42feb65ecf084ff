"""The state of one signed log, and what can be read from it.

How it changes is in `covey.feed.log`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from covey.errors import CoveyError, StoreError, UsageError, VerifyError
from covey.feed import tree
from covey.feed.bitfield import BitPages
from covey.feed.hashes import EMPTY_TREE_HASH, Node, leaf_node, tree_hash
from covey.feed.log_audit import Progress, rehash
from covey.feed.log_changes import Head, Hints, LogRecords
from covey.feed.log_events import Teller
from covey.feed.log_pages import read_pages
from covey.feed.log_staging import NodeCache, NodeMemory, Staging, Writing
from covey.feed.manifest import Manifest
from covey.feed.signatures import Authority
from covey.keys import KeyPair, discovery_key


class LogState:
    """One log as it is stored in `records`, and what is staged beside that.

    `key` names it and `manifest` says who may sign (None: unknown, or a compat log). With the
    `key_pair` of a signer it is `writable`. `head`, `pages`, `frozen` and `hints` are what was
    stored; `memory` is shared with other logs. Raises `StoreError` when they do not fit together,
    or not to the nodes in `records`.

    Attributes: `key`, `discovery_key`, `authority`, `key_pair`, `fork`, `length`, `byte_length`,
    `roots` (left to right), `signature` of the head, `tree_hash`, `bitfield` (blocks held; only
    read it), `contiguous_length` (so many blocks from the first on are held), `frozen`, and
    `on_change`, the callbacks that get each `LogEvent`, and `coming`, which gives the blocks that
    are on their way here, and `unreadable`, which hears what could not be read and was done
    without: whoever fetches blocks sets both.
    """

    __slots__ = (
        "_cache",
        "_doubtful",
        "_hints",
        "_lost",
        "_records",
        "_revision",
        "_sound",
        "_staging",
        "_teller",
        "_writing",
        "authority",
        "bitfield",
        "byte_length",
        "coming",
        "contiguous_length",
        "discovery_key",
        "fork",
        "frozen",
        "key",
        "key_pair",
        "length",
        "on_change",
        "remote_contiguous_length",
        "roots",
        "signature",
        "tree_hash",
        "unreadable",
    )

    def __init__(
        self,
        records: LogRecords,
        *,
        key: bytes,
        manifest: Manifest | None = None,
        key_pair: KeyPair | None = None,
        head: Head | None = None,
        pages: Mapping[int, bytes] | None = None,
        frozen: bool = False,
        hints: Hints | None = None,
        memory: NodeMemory | None = None,
    ) -> None:
        self._records = records
        self.key = key
        self.discovery_key = discovery_key(key)
        self.authority = Authority(key, manifest)
        self.key_pair = key_pair
        self.frozen = frozen
        self.coming: Callable[[], Iterable[int]] = tuple
        self.unreadable: Callable[[StoreError], object] = lambda _: None
        self._staging = Staging()
        self._writing: Writing | None = None  # what was staged and is being stored beside
        self._cache = NodeCache(memory or NodeMemory())
        self._teller = Teller()
        self.on_change = self._teller.listeners
        self._doubtful = False
        self._lost: CoveyError | None = None  # why what was staged last could not be stored
        self._revision = 0  # counts what takes nodes away
        self._hints = hints or Hints()
        self.remote_contiguous_length = self._hints.remote_contiguous_length
        self.bitfield = read_pages(pages or {})
        self._sound = BitPages()  # blocks that were hashed since the log was opened
        self._load(head or Head(0, 0, 0, EMPTY_TREE_HASH))
        self.contiguous_length = self.bitfield.first_unset(0)

    def _load(self, head: Head) -> None:
        """Take a stored head, after a look at everything that has to fit it."""
        roots = tree.roots_of(head.length, self._records.node)
        if roots is None:
            raise StoreError(
                f"the log {self.key.hex()} is damaged: "
                f"a root of its head of {head.length} blocks is missing"
            )
        if tree_hash(roots) != head.tree_hash or head.byte_length != sum(
            root.size for root in roots
        ):
            raise StoreError(
                f"the log {self.key.hex()} is damaged: its head is not that of its tree"
            )
        if self.bitfield.first_set(head.length) is not None:
            raise StoreError(
                f"the log {self.key.hex()} is damaged: "
                f"it holds blocks beyond its head of {head.length}"
            )
        if head.length or head.fork:
            try:
                self.authority.verify(
                    roots=roots, length=head.length, fork=head.fork, signature=head.signature
                )
            except VerifyError as error:
                raise StoreError(f"the log {self.key.hex()} is damaged: {error}") from error
        self._set_head(head, roots)

    # What it holds

    @property
    def manifest(self) -> Manifest | None:
        """Who may sign; None for a compat log whose manifest nobody told."""
        return self.authority.manifest

    @property
    def writable(self) -> bool:
        """Whether `append` may be called: we are a signer, and the log is not frozen."""
        pair = self.key_pair
        if pair is None or self.frozen:
            return False
        return any(signer.public_key == pair.public_key for signer in self.authority.signers)

    @property
    def head(self) -> Head:
        """The present head."""
        return Head(self.fork, self.length, self.byte_length, self.tree_hash, self.signature)

    @property
    def staged_blocks(self) -> int:
        """Blocks that wait for `flush`."""
        return len(self._staging.blocks)

    @property
    def staged_bytes(self) -> int:
        """Bytes of the blocks that wait for `flush`."""
        return self._staging.size

    @property
    def writing_blocks(self) -> int:
        """Blocks that are being stored: between `begin_flush` and `end_flush`."""
        return 0 if self._writing is None else len(self._writing.blocks)

    def is_staged(self, index: int) -> bool:
        """Whether this block was accepted and is not stored yet."""
        writing = self._writing
        return index in self._staging.blocks or (
            writing is not None and index in writing.staged.blocks
        )

    def has(self, index: int) -> bool:
        """Whether this block is stored; one that is only staged is not."""
        return self.bitfield.get(index)

    def node(self, index: int) -> Node | None:
        """A node of the tree by its flat index, staged ones too; None when it is not here."""
        found = self._staging.nodes.get(index)
        if found is None:
            found = self._cache.get(index)
            if found is None and self._writing is not None:
                found = self._writing.staged.nodes.get(index)
            if found is None:
                found = self._read_node(index)
                if found is not None:
                    self._cache.add((found,))
        return found

    def _read_node(self, index: int) -> Node | None:
        try:
            return self._records.node(index)
        except StoreError as error:
            for root in self.roots:
                if root.index == index:
                    self.unreadable(error)
                    return root
            raise

    def known_node(self, index: int) -> Node | None:
        """As `node`, but one that cannot be read is not here: it is fetched again, and replaced."""
        try:
            return self.node(index)
        except StoreError as error:
            self.unreadable(error)
            return None

    def has_node(self, index: int) -> bool:
        """Whether `known_node` has it."""
        return self.known_node(index) is not None

    def block(self, index: int) -> bytes | None:
        """The stored bytes of a block, staged ones too; None when it is not here.

        They are hashed again: `StoreError` when they are not those that were stored.
        """
        data = self._staging.blocks.get(index)
        if data is None and self._writing is not None:
            data = self._writing.staged.blocks.get(index)
        if data is not None:
            return data
        if index < 0 or not self.bitfield.get(index):
            return None
        data = self._records.block(index)
        if data is None:
            raise self._damaged(f"block {index} is missing")
        if leaf_node(index, data) != self.node(2 * index):
            raise self._damaged(f"block {index} is not the one that was stored")
        return data

    def served_block(self, index: int) -> bytes | None:
        """As `block`, for a peer: hashed again only once for as long as the log is open.

        So what was damaged on the disk is told here, not by peers that cut us; they hash what they
        get in any case, and a second time costs a server of large blocks half of its speed.
        """
        if not self._sound.get(index):
            data = self.block(index)
            if data is not None and not self.is_staged(index):
                self._sound.set(index, True)
            return data
        data = self._records.block(index)
        if data is None:
            raise self._damaged(f"block {index} is missing")
        return data

    def byte_offset(self, index: int) -> int | None:
        """Bytes before a block; None past the end, or when a node that it takes is not here."""
        return tree.byte_offset(index, self.roots, self.node)

    def byte_range(self, index: int) -> tuple[int, int] | None:
        """Bytes before a block, and in it; None as `byte_offset`."""
        return tree.byte_range(index, self.roots, self.node)

    def seek(self, offset: int, *, padding: int = 0) -> tuple[int, int] | None:
        """The block with byte `offset`, and the bytes before it there; None as `tree.seek`."""
        return tree.seek(offset, self.roots, self.node, padding=padding)

    def user_data(self, name: str) -> bytes | None:
        """What a user keeps with the log under `name`."""
        return self._records.user_data(name)

    def verify_all(self) -> Iterator[Progress]:
        """Check the head's signature, then hash every held block again, with progress.

        It checks the log as it is at the first step; appending meanwhile is fine. Raises
        `VerifyError` for the signature, `StoreError` for what is damaged or missing, and
        `UsageError` when the log was truncated or cleared meanwhile.
        """
        self.authority_check()
        revision = self._revision
        held = BitPages()
        for start, end in self.bitfield.ranges(0, self.length):
            held.set_range(start, end, True)
        steps = rehash(
            held, list(self.roots), self.length, get_node=self.node, get_block=self._records.block
        )
        while True:
            if revision != self._revision:
                raise UsageError("the log was truncated or cleared while it was verified")
            step = next(steps, None)
            if step is None:
                return
            yield step

    def authority_check(self) -> None:
        """`VerifyError` unless the present head is signed."""
        if self.length or self.fork:
            self.authority.verify(
                roots=self.roots, length=self.length, fork=self.fork, signature=self.signature
            )

    def _set_head(self, head: Head, roots: Sequence[Node]) -> None:
        self.fork = head.fork
        self.length = head.length
        self.byte_length = head.byte_length
        self.tree_hash = head.tree_hash
        self.signature = head.signature
        self.roots = list(roots)

    def _damaged(self, what: str) -> StoreError:
        return StoreError(f"the log {self.key.hex()} is damaged: {what}")
