"""Recorded sessions between two Node logs: every frame read, every answer verified in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from covey.feed.capability import capability
from covey.feed.hashes import Node, tree_hash
from covey.feed.manifest import Manifest, manifest_codec
from covey.feed.messages import (
    MESSAGE_CODECS,
    Data,
    Request,
    handshake_codec,
)
from covey.feed.reorg import Reorg
from covey.feed.signatures import Authority
from covey.feed.tree import missing_nodes
from covey.feed.verify import matches, verify
from covey.keys import KeyPair
from covey.wire.encoding import Reader, buffer, decode, encode, raw, string, uint
from covey.wire.protomux_frames import BATCH, CLOSE, OPEN
from tests.feed.plain_logs import PlainLog
from tests.vectors_path import load_vectors

SCENARIOS = load_vectors("replication-transcript")["scenarios"]
REQUEST, DATA = 1, 3


@dataclass
class Entry:
    """One message of a frame: on channel 0 a control, whose type and body follow."""

    channel: int
    kind: int
    body: bytes


def entry(channel: int, data: bytes) -> Entry:
    reader = Reader(data)
    kind = uint.decode_from(reader)
    return Entry(channel, kind, bytes(reader.take(reader.remaining)))


def entries_of(frame: bytes) -> Iterator[Entry]:
    """The messages of one protomux frame, those of a batch one by one."""
    reader = Reader(frame)
    channel = uint.decode_from(reader)
    if channel == 0 and frame[reader.start] == BATCH:
        uint.decode_from(reader)
        channel = uint.decode_from(reader)
        while reader.remaining:
            size = uint.decode_from(reader)
            if size == 0:
                channel = uint.decode_from(reader)
            else:
                yield entry(channel, bytes(reader.take(size)))
        return
    yield entry(channel, bytes(reader.take(reader.remaining)))


def camel(name: str) -> str:
    return re.sub("_([a-z])", lambda match: match[1].upper(), name)


def plain(value: Any) -> Any:
    """A message as the transcript writes it."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Manifest):
        return encode(manifest_codec, value).hex()
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {camel(name): plain(part) for name, part in value._asdict().items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value


def agrees(ours: Any, theirs: Any) -> bool:
    """Whether everything that the transcript says is what was read."""
    if isinstance(theirs, dict):
        return isinstance(ours, dict) and all(
            key in ours and agrees(ours[key], theirs[key]) for key in theirs
        )
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(agrees, ours, theirs))
    return bool(ours == theirs)


def said(value: dict[str, Any]) -> dict[str, Any]:
    """The transcript's words for a message, by our names; what a manifest says is not compared."""
    said = dict(value)
    if "bitfield" in said:
        bits = said.pop("bitfield")
        said["words"] = bits["bytes"][: 8 * bits["words"]].ljust(8 * bits["words"], "0")
    if "message" in said:
        said["payload"] = said.pop("message")
    if isinstance(said.get("manifest"), dict):
        said.pop("manifest")
    return said


@dataclass
class Side:
    """The reader of a session, as far as its state follows from what it was sent."""

    authority: Authority
    nodes: dict[int, Node] = field(default_factory=dict)
    blocks: dict[int, bytes] = field(default_factory=dict)
    roots: list[Node] = field(default_factory=list)
    length: int = 0
    fork: int = 0
    asked: dict[int, Request] = field(default_factory=dict)
    pushed: bool = False
    reorg: Reorg | None = None
    verified: int = 0
    claims: list[Node] = field(default_factory=list)

    def ask(self, request: Request) -> None:
        """Check that a request is what this state asks for."""
        self.asked[request.id] = request
        if request.fork > self.fork:
            if request.hash is not None:
                assert self.reorg is not None
                assert self.reorg.wanted is not None
                block = request.hash.index // 2
                assert self.reorg.wanted.request(block) == request.hash
            return
        # An answer may have been recorded before a request that does not know of it yet.
        assert request.fork <= self.fork
        if request.upgrade is not None:
            assert request.upgrade.start <= self.length
        if request.block is not None and request.fork == self.fork:
            missing = missing_nodes(request.block.index, self.length, self.nodes.__contains__)
            assert request.block.nodes >= missing or request.block.index >= self.length

    def receive(self, data: Data) -> None:
        if data.request:
            assert matches(data, self.asked.pop(data.request))
        else:
            assert self.pushed
        self.verified += 1
        if data.fork > self.fork:
            self.search(data)
            return
        verified = verify(
            data,
            roots=self.roots,
            length=self.length,
            fork=self.fork,
            get_node=self.nodes.get,
            authority=self.authority,
        )
        # Node stores claims, and its requests count on them.
        self.nodes.update((node.index, node) for node in (*verified.claimed, *verified.nodes))
        if verified.manifest is not None:
            self.authority = Authority(self.authority.key, verified.manifest)
        if verified.block is not None:
            self.blocks[verified.block[0]] = verified.block[1]
        if verified.upgrade is not None:
            self.length, self.roots = verified.upgrade.length, verified.upgrade.roots

    def search(self, data: Data) -> None:
        if self.reorg is None:
            self.reorg = Reorg(
                data, length=self.length, get_node=self.nodes.get, authority=self.authority
            )
        else:
            claims = data.hash.nodes[:2] if data.hash is not None else []
            self.reorg.receive(data)
            self.claims = [*self.claims, *claims]
        if self.reorg.shared is None:
            return
        shared = self.reorg.shared
        log = PlainLog()
        log.nodes, log.blocks = self.nodes, self.blocks
        log.cut(shared)
        self.nodes, self.blocks = log.nodes, log.blocks
        self.nodes.update((node.index, node) for node in self.claims)
        self.nodes.update((node.index, node) for node in self.reorg.nodes)
        head = self.reorg.head
        self.length, self.roots, self.fork = head.length, head.roots, head.fork
        self.reorg = None
        self.claims = []


def body_of(item: Entry) -> tuple[Any, bytes]:
    """A message of the log's channel, and how we write it ourselves."""
    codec = MESSAGE_CODECS[item.kind]
    value = decode(codec, item.body)
    return value, encode(codec, value)


def check_open(scenario: dict[str, Any], sender: str, body: bytes) -> None:
    reader = Reader(body)
    assert uint.decode_from(reader) == 1
    assert string.decode_from(reader) == "hypercore/alpha"
    assert bytes(buffer.decode_from(reader)).hex() == scenario["discoveryKey"]
    handshake = handshake_codec.decode_from(reader)
    expected = capability(
        bytes.fromhex(scenario["handshakeHash"]),
        bytes.fromhex(scenario["key"]),
        is_initiator=(sender == "reader") == scenario["readerIsInitiator"],
    )
    assert handshake.capability == expected
    assert not raw.decode_from(reader)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario["name"]))
def test_every_frame_is_read_and_written_as_it_was(scenario: dict[str, Any]) -> None:
    for frame in scenario["frames"]:
        found = list(entries_of(bytes.fromhex(frame["hex"])))
        assert len(found) == len(frame["decoded"])
        for item, expected in zip(found, frame["decoded"], strict=True):
            if item.channel == 0:
                assert expected["control"] == {OPEN: "open", CLOSE: "close"}[item.kind]
                if item.kind == OPEN:
                    check_open(scenario, frame["from"], item.body)
                continue
            assert (item.channel, item.kind) == (expected["channel"], expected["type"])
            value, written = body_of(item)
            assert written == item.body
            assert agrees(plain(value), said(expected["value"]))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario["name"]))
def test_a_reader_verifies_the_session_and_ends_with_the_same_tree(
    scenario: dict[str, Any],
) -> None:
    key = bytes.fromhex(scenario["key"])
    side = Side(Authority(key, None))
    side.pushed = any("push" in frame["step"] for frame in scenario["frames"])
    answers = 0
    for frame in scenario["frames"]:
        for item in entries_of(bytes.fromhex(frame["hex"])):
            if item.channel == 0:
                continue
            value, _ = body_of(item)
            if item.kind == REQUEST and frame["from"] == "reader":
                side.ask(value)
            elif item.kind == DATA:
                assert frame["from"] == "writer"
                answers += 1
                side.receive(value)
    end = scenario["end"]["reader"]
    assert side.verified == answers > 0
    assert side.reorg is None
    assert (side.length, side.fork) == (end["length"], end["fork"])
    assert tree_hash(side.roots).hex() == end["treeHash"]
    writer = KeyPair.from_seed(bytes.fromhex(scenario["writerSeed"]))
    assert writer.public_key.hex() == scenario["publicKey"]
    assert side.authority.compat == scenario["compat"]
