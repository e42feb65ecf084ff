"""TCP: listening on both families, dialling with happy eyeballs (RFC 8305)."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Any, TypeAlias

from covey.errors import ConnectError, ConnectionAborted, DialFailed
from covey.net.stream_shell import StreamShell

logger = logging.getLogger("covey.net.tcp")

STAGGER = 0.25
"""Seconds until the next address is tried beside those that have not answered (RFC 8305, 5)."""
MAX_ADDRESSES = 16
"""Addresses of one name that are tried: who answers our queries makes no port scanner of us."""
BACKLOG = 512
"""Connections that the system keeps for us between two turns of the loop."""
ACCEPT_PAUSE = 0.5
"""Seconds without accepting after the system refused (no descriptors, no memory)."""

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

HostPort: TypeAlias = tuple[str, int]
Target: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]
"""A family and the socket address within it."""


def unmapped(host: str) -> str:
    """`host` without the IPv6 clothes that a dual-stack socket gives IPv4 addresses."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host


class TcpTransport:
    """`net` in addresses."""

    __slots__ = ()
    name = "net"
    type = "tcp"

    async def dial(
        self, host: str, port: int, make_shell: Callable[[HostPort], StreamShell]
    ) -> StreamShell:
        """Connect to `host`, at once where it is numeric, else to the address that answers first.

        Raises `ConnectError`, and `DialFailed` where several addresses of the host failed.
        """
        targets = _numeric_target(host, port) or await _resolve(host, port)
        if len(targets) == 1:
            opened, name = await _connect_one(targets[0], f"{host}:{port}"), targets[0][1]
        else:
            opened, name = await _race(targets, f"{host}:{port}")
        return await _start(opened, make_shell((unmapped(name[0]), name[1])))

    async def listen(
        self,
        host: str | None,
        port: int,
        accept: Callable[[HostPort], StreamShell | None],
    ) -> TcpListener:
        """Listen on `host`; None means all interfaces, over IPv6 and IPv4 where there is IPv6."""
        try:
            if host is None:
                opened = _open_dual_stack(port)
            else:
                targets = _numeric_target(host, port) or await _resolve(host, port)
                opened = _open_listening(*targets[0])
        except OSError as error:
            raise _connect_error(error, f"cannot listen on {host or '*'}:{port}") from error
        return TcpListener(opened, accept)


class TcpListener:
    """Accepts on one socket until it is closed."""

    __slots__ = ("_accept", "_socket", "_task", "address")

    def __init__(
        self, opened: socket.socket, accept: Callable[[HostPort], StreamShell | None]
    ) -> None:
        self._socket = opened
        self._accept = accept
        name = opened.getsockname()
        self.address: HostPort = (str(name[0]), int(name[1]))
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name=f"covey.net.tcp.accept:{self.address[1]}"
        )

    async def close(self) -> None:
        """Stop listening. May be called again."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.shield(asyncio.gather(self._task, return_exceptions=True))
        self._socket.close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                raw, name = await loop.sock_accept(self._socket)
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    logger.warning("cannot accept on port %d: %s", self.address[1], error)
                    await asyncio.sleep(ACCEPT_PAUSE)
                elif self._socket.fileno() < 0:
                    return
                else:
                    logger.debug("accepting failed on port %d: %s", self.address[1], error)
                    await asyncio.sleep(0)
                continue
            await self._take(loop, raw, name)

    async def _take(
        self, loop: asyncio.AbstractEventLoop, raw: socket.socket, name: tuple[Any, ...]
    ) -> None:
        """Hand one accepted socket to its shell; whatever is wrong with it ends it alone."""
        shell: StreamShell | None = None
        try:
            shell = self._accept((unmapped(str(name[0])), int(name[1])))
            if shell is None:
                raw.close()
                await asyncio.sleep(0)  # a flood of refused ones leaves turns to the others
                return
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.connect_accepted_socket(lambda: shell, raw)
        except asyncio.CancelledError:
            raw.close()
            raise
        except Exception as error:
            raw.close()
            if shell is not None:
                shell.connection_lost(error)
            if isinstance(error, OSError):
                logger.debug("an accepted connection from %s was gone: %s", name[0], error)
            else:
                logger.exception("taking a connection from %s failed", name[0])


def _open_dual_stack(port: int) -> socket.socket:
    """A socket on all interfaces; of IPv4 alone where the system has no IPv6."""
    try:
        return _open_listening(socket.AF_INET6, ("::", port))
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT):
            return _open_listening(socket.AF_INET, ("0.0.0.0", port))
        raise


def _open_listening(family: socket.AddressFamily, name: tuple[Any, ...]) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.bind(name)
        opened.listen(BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


def _numeric_target(host: str, port: int) -> list[Target]:
    """The one target of a numeric host; empty when `host` is a name or has a zone to look up."""
    try:
        numeric = ipaddress.ip_address(host)
    except ValueError:
        return []
    if numeric.version == 4:
        return [(socket.AF_INET, (host, port))]
    if numeric.scope_id is not None:
        return []
    return [(socket.AF_INET6, (host, port, 0, 0))]


async def _resolve(host: str, port: int) -> list[Target]:
    """The addresses of a name, families in turn, beginning with the one the system prefers."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _connect_error(error, f"cannot find {host}") from error
    unique: list[Target] = list(dict.fromkeys((entry[0], entry[4]) for entry in found))
    first = [target for target in unique if target[0] == unique[0][0]]
    second = [target for target in unique if target[0] != unique[0][0]]
    both = chain.from_iterable(zip_longest(first, second))
    return [target for target in both if target is not None][:MAX_ADDRESSES]


async def _connect_one(target: Target, asked: str) -> socket.socket:
    family, name = target
    try:
        opened = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _connect_error(error, f"cannot connect to {asked}", asked) from error
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(opened, name)
    except OSError as error:
        opened.close()
        raise _connect_error(error, f"cannot connect to {asked}", asked) from error
    except BaseException:
        opened.close()
        raise
    return opened


async def _race(targets: list[Target], asked: str) -> tuple[socket.socket, tuple[Any, ...]]:
    """The first socket that connects. The next target starts when one fails or stays silent."""
    causes: dict[str, Exception] = {}
    running: dict[asyncio.Task[socket.socket], Target] = {}
    waiting = list(reversed(targets))
    try:
        while waiting or running:
            if waiting:
                target = waiting.pop()
                name = f"covey.net.tcp.dial:{target[1][0]}"
                running[asyncio.create_task(_connect_one(target, asked), name=name)] = target
            done, _ = await asyncio.wait(
                running,
                timeout=STAGGER if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            winner: tuple[socket.socket, tuple[Any, ...]] | None = None
            for task in done:
                target = running.pop(task)
                error = task.exception()
                if error is None and winner is None:
                    winner = task.result(), target[1]
                elif error is None:
                    task.result().close()
                elif isinstance(error, ConnectError):
                    causes[target[1][0]] = error
                else:
                    raise error
            if winner is not None:
                return winner
    finally:
        await _call_off(list(running))
    raise _all_failed(causes, asked)


async def _call_off(tasks: list[asyncio.Task[socket.socket]]) -> None:
    """Cancel the losers, and close what one of them opened all the same."""
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, socket.socket):
            outcome.close()


async def _start(opened: socket.socket, shell: StreamShell) -> StreamShell:
    try:
        await asyncio.get_running_loop().create_connection(lambda: shell, sock=opened)
    except BaseException as error:
        opened.close()
        shell.abort(ConnectionAborted("the dial was called off"))
        shell.connection_lost(error if isinstance(error, Exception) else None)
        raise
    return shell


def _connect_error(error: Exception, what: str, asked: str | None = None) -> ConnectError:
    number = getattr(error, "errno", None)
    code = errno.errorcode.get(number) if isinstance(number, int) else None
    if isinstance(error, socket.gaierror):
        code = "ENOTFOUND"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ConnectError(f"{what}: {reason}", address=asked, code=code)


def _all_failed(causes: dict[str, Exception], asked: str) -> DialFailed:
    codes = {getattr(cause, "code", None) for cause in causes.values()}
    tried = "; ".join(f"{host}: {cause}" for host, cause in causes.items())
    return DialFailed(
        f"cannot connect to {asked}, tried {len(causes)} addresses ({tried})",
        address=asked,
        code=codes.pop() if len(codes) == 1 else None,
        causes=causes,
    )
