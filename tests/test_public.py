"""What a reader of the code is promised: contracts on everything public, types, small pieces."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.source_tree import PACKAGE, is_package, read_modules

MODULES = read_modules()
PACKAGES = [name for name in MODULES if is_package(name, MODULES)]
Definition = ast.FunctionDef | ast.AsyncFunctionDef
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 50
LARGE = {
    *("covey.net.mux.create_channel", "covey.wire.secret_stream.__init__"),
}
"""Files and functions above that, each to be split: this set only shrinks."""


def public_things() -> Iterator[tuple[str, ast.ClassDef | Definition]]:
    """Classes and functions of modules, and methods of those classes, without underscore."""
    for name, tree in MODULES.items():
        stack: list[tuple[str, ast.AST]] = [(name, tree)]
        while stack:
            prefix, node = stack.pop()
            for child in ast.iter_child_nodes(node):
                if not isinstance(child, ast.ClassDef | Definition) or child.name.startswith("_"):
                    continue
                yield f"{prefix}.{child.name}", child
                if isinstance(child, ast.ClassDef):
                    stack.append((f"{prefix}.{child.name}", child))


def decorators(node: Definition) -> list[str]:
    return [ast.unparse(decorator) for decorator in node.decorator_list]


def lacks_annotation(node: Definition) -> bool:
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None]
    named = [item for item in every if item.arg not in ("self", "cls")]
    return node.returns is None or any(item.annotation is None for item in named)


def test_there_is_something_to_check() -> None:
    names = {name for name, _ in public_things()}
    assert {"covey.address.Address.parse", "covey.events.EventStream.publish"} <= names
    assert len(names) > 100


def test_everything_public_says_what_it_does() -> None:
    silent = [
        name
        for name, node in public_things()
        if ast.get_docstring(node) is None
        and not (
            isinstance(node, Definition)
            and any(text == "overload" or text.endswith(".setter") for text in decorators(node))
        )
    ]
    assert silent == []


def test_everything_public_is_fully_annotated() -> None:
    loose = [
        name
        for name, node in public_things()
        if isinstance(node, Definition) and lacks_annotation(node)
    ]
    assert loose == []


def test_every_module_says_what_it_is_for() -> None:
    assert [name for name, tree in MODULES.items() if ast.get_docstring(tree) is None] == []


def test_files_and_functions_stay_small() -> None:
    long_files = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if len(path.read_text(encoding="utf-8").splitlines()) >= MAX_FILE_LINES
    ]
    long_functions = [
        f"{name}.{node.name}"
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, Definition)
        and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert set(long_files) <= LARGE
    assert set(long_functions) <= LARGE


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_can_be_imported_first(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import {package}"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


LAZY = [name for name in PACKAGES if name != "covey.cli"]
PUBLIC: dict[str, str] = {
    "covey": """
        Address AddressError Basestore BlockNotAvailable Channel CloseReason ClosedError
        ConnectError ConnectTimeout Connection ConnectionAborted CoveyError DecodeError DialFailed
        DiscoveryError DnsDiscovery EncodeError Endpoint Feed FeedTimeout Flock FrozenError
        HandshakeError HandshakeTimeout Hub HubClosed KeyFileError KeyPair Lagged LimitError Limits
        Lookup Networker PeerFound ProtocolError Refused SelfConnection Staging StaticPeers
        StoreError Story Topic UsageError VerifyError Wakeup WakeupHandlers WakeupPeer WakeupSession
        WakeupTopic WriterHead __version__
    """,
    "covey.wire": """
        Answer Arrival BatchBegun Buffer ChannelClosed ChannelMessages ChannelOpened Codec Ended
        HandshakeResult HandshakeState MessagesReceived MulticastNode MuxEvent Opened PairRequested
        PairTimedOut PeerHeard PlainSession Protomux Reader SecretStream Session SessionEvent
        TimedOut TopicPipe TopicSecret decode encode
    """,
    "covey.feed": """
        Authority BlockCipher Manifest Node Part Prologue Signer check_manifest default_manifest
        manifest_codec signable_length
    """,
    "covey.net": """
        Attempt AttemptObserver Channel CloseReason Connection Endpoint Handshake Identity Listener
        Message MessageConsumer MessagePipe Muxer NoiseHandshake PlainHandshake RawHandshake
        StreamShell TcpTransport Transport default_handshakes default_transports
    """,
    "covey.store": """
        AppendResult Basestore Download DownloadProgress Extension Feed FeedEvent FeedPeer
        FeedProgress LmdbStorage MemoryStorage PeerProgress Replicated Snapshot Storage StoreEvent
        StoreStream Verification VerifyReport
    """,
    "covey.conn": """
        Connected Connecting ConnectingFailed Dialler Disconnected Disconnecting DisconnectingFailed
        EntryState Failure History Hub HubEntry HubEvent HubSession Link SessionEnd SessionStart
        Staged StagedEntry Staging StagingEvent Story StoryLine TieBreak UnstageReason Unstaged Via
        keep_smaller_dialler
    """,
    "covey.discovery": """
        Channel DnsDiscovery FirstRound Membership PeerFound Report Source StaticPeers Timing
        Wanted topic_hash
    """,
    "covey.flock": """
        CandidateState Cause ConnectHook ConnectionClosed ConnectionInfo Flock FlockClosed
        FlockEntry FlockError FlockEvent HandlerFailed HandshakeTimedOut Handshaking Listening Peer
        PeerBanned PeerConnectFailed PeerConnected PeerConnecting PeerDiscovered PeerDropped
        PeerPlace PeerRejected Reason RedundantConnection StreamHook StreamIdentity Topic
    """,
    "covey.networker": """
        CaughtUp Extension ExtensionHandlers FlockOptions Flushed GivenUp GroupEvent GroupFailed
        GroupFeeds GroupPeerAdded GroupPeerRemoved HandshakeDone Head HintReceived IdleClosed Joined
        Networker NetworkerEvent NetworkerFailed Peer PeerAdded PeerRemoved PeerStream
        ReplicationFailed StreamClosed StreamOpened StreamProcessed TopicStatus UnknownWriters
        WakeupGroup Woken
    """,
}
"""What each package exports; whoever changes a list here changes what users may rely on."""


def test_every_package_has_its_list() -> None:
    assert set(LAZY) == set(PUBLIC)


@pytest.mark.parametrize("package", LAZY)
def test_a_package_exports_its_list_and_nothing_else(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) == set(PUBLIC[package].split())
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("package", LAZY)
def test_type_checkers_see_the_names_that_are_there(package: str) -> None:
    typed = {
        (alias.name, node.module)
        for statement in MODULES[package].body
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"
        for node in statement.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    module = importlib.import_module(package)
    homes = {(name, home) for home, names in module._HOMES.items() for name in names}
    assert typed == homes
    assert {name for name, _ in homes} == set(module.__all__) - {"__version__"}


@pytest.mark.parametrize("package", LAZY)
def test_a_name_that_is_not_public_is_an_attribute_error(package: str) -> None:
    module = importlib.import_module(package)
    with pytest.raises(AttributeError, match=f"{package}' has no attribute 'nonsense"):
        _ = module.nonsense


@pytest.mark.parametrize("package", LAZY)
def test_importing_a_package_loads_none_of_its_parts(package: str) -> None:
    code = f"import sys, {package}; print(*sorted(n for n in sys.modules if 'covey' in n))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert set(done.stdout.split()) == {"covey", "covey._lazy", "covey._version", package}


def test_type_checkers_are_told_that_there_are_types() -> None:
    assert (PACKAGE / "py.typed").is_file()
