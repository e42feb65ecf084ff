"""One log takes from another: requests, proofs and their verification, without a network."""

from __future__ import annotations

from collections.abc import Iterable

from covey.feed.log import Log
from covey.feed.messages import Data, Request
from covey.feed.proof import build
from covey.feed.reorg import Reorg
from covey.feed.tree import missing_nodes
from covey.feed.verify import Verified, verify
from tests.feed.plain_logs import ask


def answer(source: Log, request: Request) -> Data:
    """What `source` answers."""
    return build(
        request,
        length=source.length,
        fork=source.fork,
        get_node=source.node,
        get_block=source.block,
        signature=source.signature,
        manifest=None if source.authority.compat else source.manifest,
    )


def check(log: Log, data: Data) -> Verified:
    """What `log` finds true of it."""
    return verify(
        data,
        roots=log.roots,
        length=log.length,
        fork=log.fork,
        get_node=log.node,
        authority=log.authority,
    )


def upgrade(log: Log, source: Log, *, block: int | None = None) -> None:
    """Take the head of `source`, and one of its new blocks with it."""
    asked = ask(
        fork=log.fork,
        upgrade=(log.length, source.length - log.length),
        block=None if block is None else (block, 0),
        manifest=log.manifest is None,
    )
    log.accept(check(log, answer(source, asked)))


def fetch(log: Log, source: Log, blocks: Iterable[int]) -> None:
    """Take blocks, without a flush."""
    for block in blocks:
        nodes = missing_nodes(block, log.length, log.has_node)
        log.accept(check(log, answer(source, ask(fork=log.fork, block=(block, nodes)))))


def follow_fork(log: Log, source: Log) -> int:
    """Go over to the fork of `source`; gives the number of blocks shared."""
    first = ask(fork=source.fork, upgrade=(0, source.length), manifest=log.manifest is None)
    search = Reorg(
        answer(source, first), length=log.length, get_node=log.node, authority=log.authority
    )
    while (wanted := search.wanted) is not None:
        part = wanted.request(wanted.start)
        search.receive(answer(source, ask(fork=source.fork, hash_=(part.index, part.nodes))))
    assert search.shared is not None
    log.reorg(search.head, search.nodes, search.shared, manifest=search.manifest)
    return search.shared
