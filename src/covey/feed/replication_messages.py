"""What each message of a peer does to the replication of a log (`hypercore.md` 7 to 12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from covey.errors import FrozenError, StoreError, VerifyError
from covey.feed.messages import (
    BitfieldWords,
    BlockRequest,
    Cancel,
    Data,
    ExtensionMessage,
    NoData,
    Range,
    Request,
    Sync,
    Unwant,
    UpgradeRequest,
    Want,
)
from covey.feed.proof import ProofError, build
from covey.feed.replication_choices import RemoteHead, push_levels
from covey.feed.replication_conflict import Verdict, compare, history, is_history
from covey.feed.replication_events import Conflict, ExtensionReceived, InvalidData
from covey.feed.replication_peer import DATA, ReplicationPeer
from covey.feed.verify import verify

if TYPE_CHECKING:
    from covey.feed.replicator import Replicator


class Conversation:
    """The handlers of a replicator, by kind of message."""

    def __init__(self, replicator: Replicator, *, allow_fork: bool) -> None:
        self._replicator = replicator
        self._log = replicator.log
        self._downloads = replicator.downloads
        self._announcer = replicator.announcer
        self._allow_fork = allow_fork
        self.handlers = (
            self.on_sync,
            self.on_request,
            self.on_cancel,
            self.on_data,
            self.on_no_data,
            self.on_want,
            self.on_unwant,
            self.on_bitfield,
            self.on_range,
            self.on_extension,
        )

    def on_sync(self, peer: ReplicationPeer, message: Sync, now: float) -> None:
        """The peer's head and state."""
        log = self._log
        fork, length, acked, able, uploading, downloading, has_manifest, allow_push = message
        if fork != peer.remote.fork:
            peer.agreed = peer.pushed_length = 0
        same = fork == log.fork
        peer.remote = RemoteHead(fork, length, able, uploading, acked if same else 0)
        peer.remote_downloading = downloading
        peer.remote_has_manifest = has_manifest
        peer.remote_allow_push = allow_push
        peer.stalled = False
        if not peer.synced:
            peer.synced = True
            self._downloads.pool.welcome(peer)
        if not downloading and not self._replicator.is_downloading:
            self._replicator.close_channel(peer, None)
            return
        self.consider_fork(peer)
        self._announcer.reconsider(peer)
        if same and log.length > length:
            self._announcer.sync(peer)
        self._downloads.fill(peer, now)
        self._replicator.updates.check(now)

    def on_request(self, peer: ReplicationPeer, message: Request, now: float) -> None:
        """The peer asks for something."""
        peer.requests.add(message, now)
        if peer.requests.due is not None:
            self._replicator.note_delayed(peer)

    def on_cancel(self, peer: ReplicationPeer, message: Cancel, _now: float) -> None:
        """The peer does not ask any more."""
        peer.requests.cancel(message.request)

    def on_data(self, peer: ReplicationPeer, message: Data, now: float) -> None:
        """An answer, a history to compare, or something pushed."""
        peer.stalled = False
        if message.request:
            self._downloads.on_data(peer, message, now)
        elif is_history(message) and self._on_history(peer, message, now):
            pass
        elif self._replicator.allow_push:
            self._on_push(peer, message)
        else:
            self._downloads.unasked(peer)

    def on_no_data(self, peer: ReplicationPeer, message: NoData, now: float) -> None:
        """The peer does not have what it was asked for."""
        peer.stalled = False
        self._downloads.on_no_data(peer, message, now)
        self._replicator.updates.check(now)

    def on_want(self, peer: ReplicationPeer, message: Want, now: float) -> None:
        """The peer wants to know what we hold."""
        if peer.remote_wants.add(message):
            peer.requests.want(message, now)

    def on_unwant(self, peer: ReplicationPeer, message: Unwant, _now: float) -> None:
        """The peer does not want to know any more."""
        peer.remote_wants.remove(message)
        peer.requests.unwant(message)

    def on_bitfield(self, peer: ReplicationPeer, message: BitfieldWords, now: float) -> None:
        """Which blocks the peer holds, of a part of the log."""
        start, words = message
        peer.stalled = False
        peer.claims.bitfield(start, words, max(peer.remote.length, self._log.length))
        self.note_contiguous(peer, start)
        self._downloads.pool.see_again(peer, start, start + 8 * len(words))
        self._downloads.fill(peer, now)

    def on_range(self, peer: ReplicationPeer, message: Range, now: float) -> None:
        """Blocks that the peer holds now, or no longer."""
        drop, start, length = message
        peer.claims.range(start, length, drop, max(peer.remote.length, self._log.length))
        if not drop:
            peer.stalled = False
            self.note_contiguous(peer, start)
            self._downloads.pool.see_again(peer, start, start + length)
            self._downloads.fill(peer, now)

    def on_extension(self, peer: ReplicationPeer, message: ExtensionMessage, _now: float) -> None:
        """A message for whoever uses the log."""
        name = peer.hear_extension(message)
        self._replicator.publish(ExtensionReceived(peer, name, message.payload))

    def note_contiguous(self, peer: ReplicationPeer, start: int = 0) -> None:
        """Keep what the peer claims from block 0 on, if it is the most; `start`: that is new."""
        log = self._log
        known = log.remote_contiguous_length
        if start <= known < log.length and peer.remote.fork == log.fork:
            log.remote_contiguous_length = max(known, min(peer.claims.contiguous, log.length))

    def consider_fork(self, peer: ReplicationPeer) -> None:
        """Look into a higher fork of the peer."""
        if not self._allow_fork or not peer.synced or peer.paused is not None:
            return
        if self._downloads.forks.consider(peer):
            self._replicator.stir()

    def consider_forks(self) -> None:
        """Look into the higher forks of all peers."""
        for peer in self._replicator.peers:
            self.consider_fork(peer)

    def change_fork(self, now: float) -> None:
        """Go over to a higher fork, once it is known how much of ours stays."""
        finished = self._downloads.forks.finished(now)
        if finished is None or self._downloads.suspended or self._log.frozen:
            return
        self._downloads.forks.restart()
        reorg, shared = finished
        try:
            self._log.reorg(reorg.head, reorg.nodes, shared, manifest=reorg.manifest)
        except StoreError as error:
            self._downloads.store_failed(error)

    def push(self, index: int) -> None:
        """Send a block unasked to all who allow it and lack it."""
        if self._log.has(index):
            for peer in list(self._replicator.peers):
                if peer.remote_allow_push and peer.remote_downloading:
                    self._push_to(peer, index)

    def _push_to(self, peer: ReplicationPeer, index: int) -> None:
        log = self._log
        if peer.remote.fork != log.fork or index in peer.claims or peer.paused is not None:
            return
        start = max(peer.remote.length, peer.pushed_length)
        upgrade = UpgradeRequest(start, log.length - start) if index >= start else None
        request = Request(
            0,
            log.fork,
            BlockRequest(index, push_levels(index, start)),
            upgrade=upgrade,
            manifest=peer.remote.length == 0,
        )
        try:
            data = build(
                request,
                length=log.length,
                fork=log.fork,
                get_node=log.node,
                get_block=log.served_block,
                signature=log.signature,
                manifest=None if log.authority.compat else log.manifest,
            )
        except (ProofError, StoreError):
            return
        if upgrade is not None:
            peer.pushed_length = log.length
        peer.tell(DATA, data)

    def _on_push(self, peer: ReplicationPeer, data: Data) -> None:
        """What was pushed is true or not used; what does not fit counts as not asked for."""
        log = self._log
        try:
            verified = verify(
                data,
                roots=log.roots,
                length=log.length,
                fork=log.fork,
                get_node=log.node,
                authority=log.authority,
            )
        except VerifyError as error:
            self._replicator.publish(InvalidData(peer, error))
            self._downloads.unasked(peer)
            return
        block = verified.block
        if verified.upgrade is not None or (block is not None and not log.has(block[0])):
            peer.backoffs = 0
        self._downloads.accept(peer, verified)

    def _on_history(self, peer: ReplicationPeer, data: Data, now: float) -> bool:
        """Compare a history with ours; whether it was one to compare."""
        asked, peer.probing = peer.probing, False
        try:
            verdict = compare(self._log, data)
        except VerifyError as error:
            self._downloads.fail(peer, error)
            return True
        if verdict is Verdict.CONTRADICTS:
            self._conflict(peer)
            return True
        if asked:
            peer.paused = None
            self._downloads.pool.welcome(peer)
            self._announcer.catch_up(peer, now)
            self.consider_fork(peer)
            self._replicator.stir()
        return asked

    def _conflict(self, peer: ReplicationPeer) -> None:
        """The owner signed two histories: nobody can tell which is right, so nothing goes on."""
        log, replicator = self._log, self._replicator
        length, fork = min(log.length, peer.remote.length), log.fork
        proofs = [
            (other, history(log, other.remote.length))
            for other in replicator.peers
            if other.remote.fork == fork
        ]
        error = FrozenError(f"the log {log.key.hex()} was signed in two ways")
        try:
            log.freeze(length=length, fork=fork)
        except StoreError as failure:
            self._downloads.store_failed(failure)
        for other, proof in proofs:
            if proof is not None:
                other.tell(DATA, proof)
        replicator.publish(Conflict(length, fork, peer))
        replicator.end_all(error)
