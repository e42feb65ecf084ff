"""What one log keeps, and what one commit changes of it (`storage.md` section 1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from covey.feed.hashes import Node
from covey.feed.manifest import Manifest

LAST: Final = 1 << 53
"""The end of a range that has none: above every block and node."""

Span = tuple[int, int]
"""From the first number to before the second."""


class Head(NamedTuple):
    """The signed state of a log, as it is kept; its roots are among the nodes.

    `signature` is None for a log without blocks that was never signed, and where the manifest
    itself vouches. `timestamp`: milliseconds since 1970, 0 until it was stored.
    """

    fork: int
    length: int
    byte_length: int
    tree_hash: bytes
    signature: bytes | None = None
    timestamp: int = 0


class Hints(NamedTuple):
    """What is good to know without opening the log; after a crash it may be out of date."""

    contiguous_length: int = 0
    remote_contiguous_length: int = 0


@dataclass(slots=True)
class Changes:
    """What one commit does, all of it or nothing.

    Deletions come first, what is put then stays. `pages` are availability bits, 512 bytes for each
    4,096 blocks. Node ranges count flat indexes. None means: as it was; in `user_data` it means
    that the name goes.
    """

    blocks: list[tuple[int, bytes]] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    head: Head | None = None
    pages: dict[int, bytes] = field(default_factory=dict)
    manifest: Manifest | None = None
    deleted_blocks: list[Span] = field(default_factory=list)
    deleted_nodes: list[Span] = field(default_factory=list)
    deleted_pages: list[Span] = field(default_factory=list)
    user_data: dict[str, bytes | None] = field(default_factory=dict)
    frozen: bool | None = None
    hints: Hints | None = None


class LogRecords(Protocol):
    """Where the records of one log are. Reading raises `StoreError` for a damaged record."""

    def node(self, index: int) -> Node | None:
        """A node of the tree by its flat index; None when it is not kept."""
        ...

    def block(self, index: int) -> bytes | None:
        """The stored bytes of a block; None when they are not kept."""
        ...

    def user_data(self, name: str) -> bytes | None:
        """What is kept under `name`; None when nothing is."""
        ...

    def commit(self, changes: Changes) -> None:
        """Do all of it; it is durable when this returns.

        When this raises a `CoveyError` nothing of it happened: `StoreError` when the store cannot.
        """
        ...
