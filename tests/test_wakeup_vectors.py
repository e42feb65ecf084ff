"""The cases of `wakeup.json`: encodings, proofs, and scripts of calls on one wakeup.

The scripts run on the public `Wakeup` over muxers with pipe doubles (`wakeup.md` section 10). A
step with `strict: false` records what the reference gets wrong: only `must`, `must_not`,
`must_wire` and `also_wire` are compared there. What is right instead stands in
`test_wakeup_hostile.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

from covey.errors import DecodeError, UsageError
from covey.wakeup import (
    Lookup,
    Wakeup,
    WakeupHandlers,
    WakeupPeer,
    WakeupSession,
    WriterHead,
    capability_proof,
    topic_id,
)
from covey.wire.encoding import Codec, decode, encode
from covey.wire.wakeup_messages import (
    AnnounceCodec,
    Handshake,
    Info,
    handshake_codec,
    info_codec,
    lookup_codec,
)
from tests.net.test_mux_vectors import check_loose, comparable
from tests.vectors_path import load_vectors
from tests.wakeup_streams import StreamDouble, recorded_stream, settle

VECTORS = load_vectors("wakeup")
Case = dict[str, Any]
Step = dict[str, Any]

CODECS: dict[str, Codec[Any]] = {
    "handshake": handshake_codec,
    "lookup": lookup_codec,
    "announce": AnnounceCodec(65536),
    "info": info_codec,
}


def cases(*kinds: str) -> list[Any]:
    found = [case for case in VECTORS["cases"] if case["kind"] in kinds]
    return [pytest.param(case, id=case["name"]) for case in found]


def heads_of(listed: list[dict[str, Any]]) -> list[WriterHead]:
    return [WriterHead(bytes.fromhex(item["key"]), item["length"]) for item in listed]


def listed(heads: list[WriterHead]) -> list[dict[str, Any]]:
    return [{"key": head.key.hex(), "length": head.length} for head in heads]


def optional(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def message_of(kind: str, value: Any) -> Any:
    if kind == "handshake":
        return Handshake(bytes.fromhex(value["capability"]), value["active"], value["version"])
    if kind == "lookup":
        return Lookup(optional(value["hash"]))
    return heads_of(value) if kind == "announce" else Info(value["active"])


def test_every_kind_of_case_has_a_runner() -> None:
    known = {"message", "message-decode", "message-decode-error", "capability", "script"}
    assert {case["kind"] for case in VECTORS["cases"]} <= known


@pytest.mark.parametrize("case", cases("message"))
def test_encoding(case: Case) -> None:
    codec, value = CODECS[case["message"]], message_of(case["message"], case["value"])
    assert encode(codec, value).hex() == case["encoded"]
    assert decode(codec, bytes.fromhex(case["encoded"])) == value


@pytest.mark.parametrize("case", cases("message-decode"))
def test_decoding(case: Case) -> None:
    value = decode(CODECS[case["message"]], bytes.fromhex(case["encoded"]))
    assert value == message_of(case["message"], case["value"])


@pytest.mark.parametrize("case", cases("message-decode-error"))
def test_refusal(case: Case) -> None:
    with pytest.raises(DecodeError):
        decode(CODECS[case["message"]], bytes.fromhex(case["encoded"]))


@pytest.mark.parametrize("case", cases("capability"))
def test_topic_and_proofs(case: Case) -> None:
    capability = bytes.fromhex(case["capability"])
    handshake_hash = bytes.fromhex(case["handshake_hash"])
    for role in ("initiator", "responder"):
        proof = capability_proof(capability, handshake_hash, is_initiator=role == "initiator")
        assert proof.hex() == case[f"proof_by_{role}"]
    if case["topic_id"] is None:
        with pytest.raises(UsageError):
            topic_id(capability)
    else:
        assert topic_id(capability).hex() == case["topic_id"]


class Script:
    """One wakeup, its streams, and what its handlers saw."""

    def __init__(self, case: Case) -> None:
        self.events: list[list[Any]] = []
        self.wire: list[list[str]] = []
        self.sessions: dict[str, WakeupSession] = {}
        self.removed: dict[str, WakeupPeer] = {}
        self.on_wakeup_steps: list[Step] = case.get("onwakeup", [])
        self.wakeup = Wakeup(self.on_wakeup)
        self.streams: dict[str, StreamDouble] = {}
        for name, options in case["streams"].items():
            self.add_double(name, options)

    def add_double(self, name: str, options: dict[str, Any]) -> None:
        stream, pipe = recorded_stream(
            initiator=options["is_initiator"],
            handshake_hash=bytes.fromhex(options["handshake_hash"]),
            name=name,
            auto_batch=False,
        )
        write = pipe.write_messages

        def recording(messages: list[Any]) -> bool:
            self.wire.extend([name, bytes(message).hex()] for message in messages)
            return write(messages)

        def tell(what: str, *event: Any) -> None:
            self.tell(what, name, *event)

        pipe.write_messages = recording  # type: ignore[method-assign]
        pipe.tell = tell
        self.streams[name] = stream

    def tell(self, *event: Any) -> None:
        self.events.append(list(event))

    def on_wakeup(self, key: bytes, stream: Any) -> None:
        self.tell("onwakeup", key.hex(), stream.name)
        for step in self.on_wakeup_steps:
            self.run(step)

    def run(self, step: Step) -> None:
        getattr(self, "do_" + step["op"])(step)

    def handlers(self, step: Step) -> WakeupHandlers:
        name = step["as"]

        def about(what: str) -> Any:
            return lambda peer, _session: self.tell(what, name, peer.stream.name)

        def on_announce(heads: list[WriterHead], peer: WakeupPeer, _: WakeupSession) -> None:
            self.tell("announce", name, peer.stream.name, listed(heads))

        def on_lookup(lookup: Lookup, peer: WakeupPeer, session: WakeupSession) -> None:
            told = None if lookup.hash is None else lookup.hash.hex()
            self.tell("lookup", name, peer.stream.name, told)
            if "answer" in step:
                session.announce(peer, heads_of(step["answer"]))

        return WakeupHandlers(
            on_peer_add=about("peeradd"),
            on_peer_remove=about("peerremove"),
            on_peer_active=about("peeractive"),
            on_peer_inactive=about("peerinactive"),
            on_announce=on_announce,
            on_lookup=on_lookup,
            on_destroy=lambda _: self.tell("ondestroy", name),
            active=step.get("active", True),
            discovery_key=optional(step.get("discovery_key")),
        )

    def session_of(self, step: Step) -> WakeupSession:
        return self.sessions[step["session"]]

    def peer_of(self, step: Step) -> WakeupPeer:
        """The peer on the stream; one that is removed is remembered."""
        found = self.session_of(step).get_peer(self.streams[step["stream"]])
        if found is not None:
            self.removed[step["stream"]] = found
        return self.removed[step["stream"]]

    def do_session(self, step: Step) -> None:
        handlers = self.handlers(step)
        session = self.wakeup.session(bytes.fromhex(step["capability"]), handlers)
        self.sessions[step["as"]] = session

    def do_add_stream(self, step: Step) -> None:
        self.wakeup.add_stream(self.streams[step["stream"]].connection)

    def do_session_add_stream(self, step: Step) -> None:
        self.session_of(step).add_stream(self.streams[step["stream"]])

    def do_recv(self, step: Step) -> None:
        self.streams[step["stream"]].pipe.receive(bytes.fromhex(step["data"]))  # type: ignore[attr-defined]

    def do_stream_close(self, step: Step) -> None:
        self.streams[step["stream"]].pipe.close()  # type: ignore[attr-defined]

    def do_lookup(self, step: Step) -> None:
        self.session_of(step).lookup(self.peer_of(step), optional(step.get("hash")))

    def do_lookup_by_stream(self, step: Step) -> None:
        stream = self.streams[step["stream"]]
        self.session_of(step).lookup_by_stream(stream, optional(step.get("hash")))

    def do_broadcast_lookup(self, step: Step) -> None:
        self.session_of(step).broadcast_lookup(optional(step.get("hash")))

    def do_announce(self, step: Step) -> None:
        self.session_of(step).announce(self.peer_of(step), heads_of(step["list"]))

    def do_announce_by_stream(self, step: Step) -> None:
        stream = self.streams[step["stream"]]
        self.session_of(step).announce_by_stream(stream, heads_of(step["list"]))

    def do_active(self, step: Step) -> None:
        self.session_of(step).active()

    def do_inactive(self, step: Step) -> None:
        self.session_of(step).inactive()

    def do_destroy_session(self, step: Step) -> None:
        self.session_of(step).destroy()

    def do_destroy_swarm(self, _step: Step) -> None:
        self.wakeup.destroy()

    def do_gc_tick(self, step: Step) -> None:
        for _ in range(step.get("times", 1)):
            self.wakeup._machine.gc_step()

    def do_same_tick(self, step: Step) -> None:
        for inner in step["steps"]:
            self.run(inner)

    def do_state(self, _step: Step) -> None:
        names = {session: name for name, session in self.sessions.items()}
        topics = [
            {
                "id": topic.id.hex(),
                "sessions": [names[session] for session in topic.sessions],
                "peers": [peer.stream.name for peer in topic.peers],
                "pending": [peer.stream.name for peer in topic.pending_peers],
                "active_peers": topic.active_peers,
                "is_active": topic.is_active,
                "idle_ticks": topic.idle_ticks,
                "gc": topic.idle,
            }
            for topic in self.wakeup.topics.values()
        ]
        names_of_streams = {id(stream): name for name, stream in self.streams.items()}
        muxers = [names_of_streams[id(stream)] for stream in self.wakeup._ports]
        assert all(self.wakeup.has_stream(stream) for stream in self.wakeup._ports)
        timer = self.wakeup._machine.next_timer() is not None
        self.tell("state", {"topics": topics, "gc_timer": timer, "muxers": muxers})

    def do_stats(self, _step: Step) -> None:
        counts = self.wakeup.stats.snapshot()
        stats: dict[str, Any] = {
            "sessionsOpened": counts.sessions_opened,
            "sessionsClosed": counts.sessions_closed,
            "topicsAdded": counts.topics_added,
            "topicsGcd": counts.topics_gcd,
            "peersAdded": counts.peers_added,
            "peersRemoved": counts.peers_removed,
            "wireAnnounce": {"rx": counts.wire_announce_rx, "tx": counts.wire_announce_tx},
            "wireLookup": {"rx": counts.wire_lookup_rx, "tx": counts.wire_lookup_tx},
            "wireInfo": {"rx": counts.wire_info_rx, "tx": counts.wire_info_tx},
        }
        self.tell("stats", stats)


@pytest.mark.parametrize("case", cases("script"))
async def test_script(case: Case) -> None:
    script = Script(case)
    for step in case["steps"]:
        script.events.clear()
        script.wire.clear()
        script.run(step)
        await settle()
        if step.get("strict") is False:
            check_loose(step, script.wire, script.events)  # type: ignore[arg-type]
            continue
        assert script.wire == step["expect"]["wire"], step
        expected = comparable(step["expect"]["events"])
        if script.wakeup.closed:  # the reference keeps its streams after the end
            for event in expected:
                if event[0] == "state":
                    event[1]["muxers"] = []
        assert comparable(script.events) == expected, step
    await script.wakeup.close()
