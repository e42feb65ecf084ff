"""Node's ends of the log tests: one hypercore, or a corestore, with what their blocks contain.

async with hypercore_peer("--blocks", 3, "--stdin") as writer:
    async with hypercore_peer("--connect", writer.port, "--key", writer.key, "--live") as reader:
        await reader.event("block", **block_fields(0))
        await writer.tell("!truncate 1")
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.interop.harness import Event, NodePeer

FORKED = 1  # the variant of `!fill N 1` and `--fork-later`
TWIN = 9  # the variant that `--twin` writes


class LogPeer(NodePeer):
    """A Node program that owns or fetches logs; its events of starting up were handed out."""

    directory: Path

    @property
    def key(self) -> str:
        """The core key of a `hypercore_peer`, in hex."""
        return str(self._one("ready")["key"])

    @property
    def discovery_key(self) -> str:
        """The discovery key of a `hypercore_peer`, in hex."""
        return str(self._one("ready")["discoveryKey"])

    def core(self, name: str) -> Event:
        """What a `corestore_peer` told of its core `name`: `key`, `length`, `treeHash`, ..."""
        return self._one("core", name=name)

    def keys(self, names: str) -> str:
        """The keys of these cores of a `corestore_peer`, joined by commas as `--keys` wants."""
        return ",".join(self.core(name)["key"] for name in names.split(","))

    def _one(self, event: str, **fields: object) -> Event:
        wanted = {"event": event, **fields}.items()
        found = [said for said in self.events if wanted <= {**said}.items()]
        assert len(found) == 1, f"{self.program} told {wanted} {len(found)} times: {self.events}"
        return found[0]


@asynccontextmanager
async def hypercore_peer(
    *arguments: object, directory: Path | None = None, lifetime: float = 50
) -> AsyncIterator[LogPeer]:
    """`hypercore-peer.cjs` with these options; its head explains them. Yields when it is up.

    It serves a log of its own, or fetches one with `--key`; it listens, or dials with `--connect`
    (in which case it is up before the dialled connection is). `event` waits for what it does,
    `tell` sends it a command when `--stdin` is among the options. Its log is in `directory`, which
    outlives it, or in a temporary one, which does not.
    """
    mode = () if "--mode" in arguments else ("--mode", "get" if "--key" in arguments else "serve")
    options = (*mode, *arguments)
    async with _started("hypercore-peer.cjs", options, directory, lifetime) as peer:
        await peer.event("ready")
        await _listening(peer, options)
        yield peer


@asynccontextmanager
async def corestore_peer(
    *arguments: object, directory: Path | None = None, lifetime: float = 50
) -> AsyncIterator[LogPeer]:
    """`corestore-peer.cjs` with these options, like `hypercore_peer`; it reads no commands.

    With `--names` it has written its cores when this yields, see `LogPeer.core`.
    """
    async with _started("corestore-peer.cjs", arguments, directory, lifetime) as peer:
        await peer.event("store")
        await _listening(peer, arguments)
        yield peer


@asynccontextmanager
async def _started(
    program: str, options: tuple[object, ...], directory: Path | None, lifetime: float
) -> AsyncIterator[LogPeer]:
    with TemporaryDirectory(prefix="covey-node-", ignore_cleanup_errors=True) as temporary:
        kept = directory or Path(temporary)
        stdin = "--stdin" in options
        peer = LogPeer(program, *options, "--dir", kept, lifetime=lifetime, stdin=stdin)
        peer.directory = kept
        async with peer:
            yield peer


async def _listening(peer: LogPeer, options: tuple[object, ...]) -> None:
    if "--connect" not in options:
        await peer.event("listening")


def block(index: int, *, size: int | None = None, variant: int = 0) -> bytes:
    """Block `index` as `hypercore-peer.cjs` writes it; `size` as in `--size`."""
    if size is not None:
        return bytes((index * 31 + at * 7 + variant * 101) % 251 for at in range(size))
    fork = "fork " if variant else ""
    version = f" v{variant}" if variant > 1 else ""
    return f"{fork}block #{index}{version}".encode()


def named_block(name: str, index: int, *, size: int | None = None) -> bytes:
    """Block `index` of the core `name` as `corestore-peer.cjs` writes it."""
    if size is None:
        return f"{name} #{index}".encode()
    text = name.encode()
    filled = (text * (size // len(text) + 1))[:size]
    return index.to_bytes(4, "little") + filled[4:]


def digest(data: bytes) -> str:
    """What the `block` events call `blake2b`."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def block_fields(index: int, data: bytes | None = None) -> Event:
    """The fields of the `block` event of a reader that got `data` (default: `block(index)`)."""
    data = block(index) if data is None else data
    return {"index": index, "size": len(data), "blake2b": digest(data)}
