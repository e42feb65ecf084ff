"""What a stranger can make us hold, in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from covey.errors import UsageError

MAX_FRAME = (1 << 24) - 1
"""Body of a secret stream frame at most, in bytes: its length is written in 3 of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds passed down to every part; sizes in bytes, times in seconds.

    Every field is enforced somewhere and has a test that reaches it.
    """

    # Connections
    max_connections: int = 704
    """Open connections of one hub, both directions. With `max_handshakes` and `max_dials` that
    leaves 96 of 1,024 descriptors, a usual soft limit, for everything else."""
    max_incoming: int = 640
    """Accepted connections of one hub; leaves room to dial when strangers fill the rest."""
    max_per_ip: int = 64
    """Accepted connections from one remote address; an office behind one router still fits."""
    max_per_key: int = 8
    """Connections to one proven key; more than a few are a mistake or an attack."""
    max_handshakes: int = 192
    """Accepted connections still in their handshake; the oldest is dropped for a new one."""
    connect_timeout: float = 10.0
    """Looking a host up and connecting to it; the `timeout` of a dial may leave it less."""
    handshake_timeout: float = 10.0
    """From the first byte possible to the end of the handshake; a fixed budget, not a heartbeat."""
    idle_timeout: float = 60.0
    """So long a silence is the end of a connection whose remote has shown that it keeps alive.

    In the same time a frame that has begun must be complete (64 KiB more a second for large ones),
    a full write buffer must move, and the system must hear from the remote's (TCP keep-alive). 0
    switches all of this off.
    """
    keep_alive: float = 15.0
    """After so long without writing an empty frame is sent; a quarter of `idle_timeout`. 0: off."""
    close_timeout: float = 5.0
    """How long `close` waits for pending bytes to leave before it cuts."""

    # Frames and buffers
    max_frame: int = MAX_FRAME
    """Body of one secret stream frame; the 3-byte length prefix allows no more."""
    partial_frames: int = 1 << 28
    """Held of unfinished frames, all connections of an endpoint; above it the largest is cut."""
    max_handshake_payload: int = 1024
    """Payload bytes tolerated in a handshake message, for forward compatibility."""
    max_queued: int = 1 << 20
    """Bytes a caller may queue before the handshake is over."""
    read_backlog: int = 1 << 20
    """Decoded bytes kept for a reader that is slow; above it the socket is paused."""
    write_backlog: int = 1 << 20
    """Bytes waiting for the socket above which `send` waits."""

    # Channels
    max_channels: int = 4096
    """Channels that a remote may hold on one connection, closed ones whose handlers still run too;
    each takes about 4 KiB, so these take 16 MiB."""
    max_pairing: int = 128
    """Remote opens that wait for an answer on one connection."""
    pair_timeout: float = 10.0
    """How long a pair callback may take before the open is rejected."""
    pairing_backlog: int = 32768
    """Bytes kept for channels that are still pairing; above it the stream is paused (protomux)."""
    channel_backlog: int = 1 << 24
    """Bytes kept for one channel's slow asynchronous handler; above it that channel is closed."""
    mux_backlog: int = 32 << 20
    """Bytes kept for all asynchronous handlers of one connection, waiting and running; above it
    the channels with the most are closed, until an eighth of it is free, and the connection where
    that does not help."""
    max_name: int = 255
    """Bytes of a protocol name or channel id; all known ids are 32."""
    auto_cork: float = 0.05
    """How long replies to a received batch may be held back to leave as one batch."""
    max_batch: int = 8 << 20
    """Bytes collected in one batch before it is written (protomux)."""

    # Candidates and discovery
    max_staged: int = 10_000
    """Candidates in the staging pool; the least recently updated goes first."""
    max_staged_per_key: int = 32
    """Addresses kept for one key: a host has a few interfaces, not hundreds."""
    max_candidates: int = 1024
    """Addresses remembered per joined topic."""
    max_ports_per_host: int = 16
    """Candidate ports per address and topic: a forged answer makes no port scanner of us."""
    max_dials: int = 32
    """Dials under way at once."""
    dials_per_second: float = 64.0
    """Dials started per second, over all topics."""
    max_dns_records: int = 10_000
    """Records a DNS-discovery node keeps for others."""
    max_dns_peers: int = 31
    """Peers heard from one DNS answer; one of ours tells no more than its TXT string holds, 31."""
    dns_datagrams_per_second: float = 200.0
    """Multicast datagrams read from one host, sixteen times that in all; a busy host sends tens."""
    dns_datagram_burst: float = 400.0
    """Datagrams from one host that may come at once: what a network of that size answers."""
    dns_answers_per_second: float = 50.0
    """DNS answers per second to one address; many processes of one host share theirs."""
    dns_answer_burst: float = 200.0
    """DNS answers that one address may draw at once after a quiet time."""
    max_dns_sources: int = 1024
    """Addresses whose DNS questions are counted, and own tokens remembered."""

    # Signed logs
    claims_ahead: int = 1 << 21
    """Blocks past the longest known length of which a remote's claims are kept; more can be asked
    for when that length has grown."""
    max_claims: int = 4096
    """Pieces kept of what one remote claims of one log, some 700 bytes each; a piece is a run of
    blocks or 4,096 blocks with holes, and those farthest from the newest claim are forgotten."""

    missed_opens_per_minute: float = 64.0
    """Logs that one remote may open on a connection and that are not here, above which its further
    misses are answered and no longer told to anybody. So often it may also open a log from which it
    is kept away; then it is dropped."""
    false_capabilities: int = 3
    """Channels of one connection whose remote does not know the log's key; then it is dropped."""

    extension_backlog: int = 1 << 20
    """Bytes of a peer's extension messages that wait for handlers, and of ours that wait for the
    peer; a remote that sends more loses the channel, a caller is told."""

    # Wakeup
    wakeup_announced: int = 1 << 16
    """Heads in one announce, sent or received; each takes 33 bytes or more. A remote that takes
    fewer than we send drops the connection: groups send 4,096 at most, so take no fewer."""
    wakeups_per_second: float = 16.0
    """Opens of unknown topics that one connection may have `on_wakeup` called for, and wrong proofs
    that it may show; beyond these its opens are rejected."""
    wakeup_burst: float = 128.0
    """How many of them may come at once after a quiet time."""
    wakeup_callbacks: int = 8
    """Calls of `on_wakeup` under way for one connection, eight times that in all; further opens
    wait, no longer than `pair_timeout`."""

    # Hints of a group of logs
    woken_logs: int = 64
    """Logs of one group that are open at once because of hints; others wait for their turn."""
    accepted_logs: int = 10_000
    """Logs that one group takes in because peers told of them, half of them because of one peer;
    some 300 bytes each. One that is removed gives its place back."""
    lookups_per_second: float = 512.0
    """What the lookups of one peer may cost, per group: 1 each, and 1 for 256 logs looked at; 16
    seconds of it are saved up. What is above is not answered; the peer is asked anew later."""

    # Events
    event_backlog: int = 1024
    """Events kept for a subscriber that is slow; what does not fit is counted in `Lagged`."""
    history: int = 64
    """Reasons kept per peer for `explain`."""
    max_stories: int = 4096
    """Peers whose reasons are kept; counted apart for peers we chose and strangers who came."""

    def __post_init__(self) -> None:
        """Refuse what bounds nothing or does not fit the wire.

        `TypeError` for what is no number, or not a whole one where things are counted; `UsageError`
        for a negative or not finite number, and for a `max_frame` above 2^24 - 1.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.type == "int"
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                wanted = "a whole number" if whole else "a number"
                given = type(value).__name__
                raise TypeError(f"the limit {field.name} is {wanted}, not {given}")
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"the limit {field.name} is a number from 0 on, not {value!r}")
        if self.max_frame > MAX_FRAME:
            raise UsageError(f"the limit max_frame is {MAX_FRAME} at most, not {self.max_frame}")
