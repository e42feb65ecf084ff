"""TCP: listening on both families, dialling with happy eyeballs (RFC 8305)."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache
from itertools import chain, zip_longest
from typing import Any, TypeAlias, cast

from covey.address import Step, host_and_port
from covey.errors import AddressError, ConnectError, ConnectionAborted, DialFailed, UsageError
from covey.host_port import HostPort, check_port, show, unmapped
from covey.limits import Limits
from covey.net.sockets import Option, liveness_options, set_options
from covey.net.stream_shell import StreamShell

logger = logging.getLogger("covey.net.tcp")

STAGGER = 0.25
"""Seconds until the next address is tried beside those that have not answered (RFC 8305, 5)."""
MAX_ADDRESSES = 16
"""Addresses of one name that are tried: who answers our queries makes no port scanner of us."""
BACKLOG = 512
"""Connections that the system keeps for us between two turns of the loop."""
ACCEPTED_AT_ONCE = 1
"""Connections taken in a turn of the loop. Where the system has no descriptors left, asyncio tries
as many times all the same, each with a line in the log and a timer that tries as often again."""
SETTLING_TURNS = 4
"""Turns of the loop until what it had accepted when it stopped has come to our door and gone."""

_INHERITED = sys.platform == "linux"
Target: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]
"""A family and the socket address within it."""


class TcpTransport:
    """`net` in addresses. The system looks for dead hosts; `limits.idle_timeout` says how soon."""

    __slots__ = ("_options",)
    name = "net"
    type = "tcp"

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008  frozen
        self._options = liveness_options(limits)

    def place(self, step: Step) -> HostPort:
        """The host and the port in `step`. Raises `AddressError`."""
        host, port = host_and_port(step)
        if host is None or port is None:
            raise AddressError(f"no host and port to dial in {step}")
        return host, port

    async def dial(self, step: Step, make_shell: Callable[[HostPort], StreamShell]) -> StreamShell:
        """Connect to `host`, at once where it is numeric, else to the address that answers first.

        Raises `ConnectError`, and `DialFailed` where several addresses of the host failed.
        """
        host, port = self.place(step)
        targets = _numeric_target(host, port) or await _resolve(host, port)
        if len(targets) == 1 and not _has_scope(targets[0]):
            return await _call(targets[0], show(host, port), make_shell, self._options)
        opened, name = await _race(targets, show(host, port))
        set_options(opened, self._options)
        return await _start(opened, make_shell((unmapped(name[0]), name[1])))

    async def listen(
        self,
        host: str | None,
        port: int,
        accept: Callable[[HostPort], StreamShell | None],
    ) -> TcpListener:
        """Listen on `host`; None means all interfaces, over IPv6 and IPv4 where there is IPv6.

        Raises `UsageError` for a port outside 0 to 65535 and for an empty host, `ConnectError`
        where the port cannot be had.
        """
        check_port(port, or_any=True)
        _check_host(host)
        try:
            if host is None:
                opened = _open_dual_stack(port)
            else:
                targets = _numeric_target(host, port) or await _resolve(host, port)
                opened = _open_listening(*targets[0])
        except OSError as error:
            raise _connect_error(error, f"cannot listen on {show(host or '*', port)}") from error
        set_options(opened, self._options)  # what it accepts takes them over on Linux
        door = _Door(accept, () if _INHERITED else self._options)
        loop = asyncio.get_running_loop()
        server: asyncio.Server | None = None
        try:
            server = await loop.create_server(
                lambda: door, sock=opened, backlog=ACCEPTED_AT_ONCE, start_serving=False
            )
            await server.start_serving()
            opened.listen(BACKLOG)  # again: the loop has told the system its own number
        except BaseException:
            if server is not None:  # else the loop would go on looking at the descriptor
                server.close()
            opened.close()
            raise
        return TcpListener(opened, server)


class TcpListener:
    """Accepts on one socket until it is closed.

    The loop accepts: asyncio's pauses where the system has no descriptors or memory left, libuv
    drops connections until it has.
    """

    __slots__ = ("_server", "_socket", "address")

    def __init__(self, opened: socket.socket, server: asyncio.Server) -> None:
        self._server = server
        self._socket = opened
        name = opened.getsockname()
        self.address: HostPort = (str(name[0]), int(name[1]))

    async def close(self) -> None:
        """Stop listening. May be called again."""
        if not self._server.is_serving():
            return
        with suppress(NotImplementedError):  # asyncio drops, unclosed, what comes as it closes
            asyncio.get_running_loop().remove_reader(self._socket)
        try:
            await _settle()
        finally:  # also for a caller that is cancelled: nobody accepts there any more
            self._server.close()
        await _settle()


async def _settle() -> None:
    for _ in range(SETTLING_TURNS):
        await asyncio.sleep(0)


class _Door(asyncio.Protocol):
    """Meets every accepted connection and gives it to its shell, or refuses it."""

    __slots__ = ("_accept", "_options")

    def __init__(
        self, accept: Callable[[HostPort], StreamShell | None], options: tuple[Option, ...]
    ) -> None:
        self._accept = accept
        self._options = options

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        opened = cast("asyncio.Transport", transport)
        name = opened.get_extra_info("peername")
        shell: StreamShell | None = None
        try:
            if name is not None:  # else it is gone again
                shell = self._accept((unmapped(str(name[0])), int(name[1])))
            if shell is None:
                opened.abort()
                return
            set_options(opened.get_extra_info("socket"), self._options)
            opened.set_protocol(shell)
            shell.connection_made(opened)
        except Exception as error:
            logger.exception("taking a connection from %s failed", name)
            opened.abort()
            if shell is not None:
                shell.connection_lost(error)


class _Caller(asyncio.Protocol):
    """Has the shell made when the connection is up, so that its time begins then."""

    __slots__ = ("_make_shell", "_options", "failure", "shell")

    def __init__(self, make_shell: Callable[[], StreamShell], options: tuple[Option, ...]) -> None:
        self._make_shell = make_shell
        self._options = options
        self.shell: StreamShell | None = None
        self.failure: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        opened = cast("asyncio.Transport", transport)
        try:
            set_options(opened.get_extra_info("socket"), self._options)
            self.shell = self._make_shell()
            opened.set_protocol(self.shell)
            self.shell.connection_made(opened)
        except Exception as error:  # noqa: BLE001  raised where the dial waits
            self.failure = error
            opened.abort()


def _check_host(host: str | None) -> None:
    """Raise what `listen` promises for a host that nobody could find."""
    if not (host is None or isinstance(host, str)):
        raise TypeError(f"a host to listen on is text or None, not {type(host).__name__}")
    if host == "":
        raise UsageError("a host to listen on is a name or an address; None is all interfaces")


def _open_dual_stack(port: int) -> socket.socket:
    """A socket on all interfaces; of IPv4 alone where the system has no IPv6."""
    try:
        return _open_listening(socket.AF_INET6, ("::", port))
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT):
            return _open_listening(socket.AF_INET, ("0.0.0.0", port))
        raise


def _open_listening(family: socket.AddressFamily, name: tuple[Any, ...]) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with ExitStack() as undo:
        undo.callback(opened.close)
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.bind(name)
        opened.listen(BACKLOG)
        undo.pop_all()
    return opened


@lru_cache(maxsize=256)
def _numeric_target(host: str, port: int) -> Sequence[Target]:
    """The one target of a numeric host; empty when `host` is a name or has a zone to look up."""
    try:
        numeric = ipaddress.ip_address(host)
    except ValueError:
        return ()
    if numeric.version == 4:
        return ((socket.AF_INET, (host, port)),)
    if numeric.scope_id is not None:
        return ()
    return ((socket.AF_INET6, (host, port, 0, 0)),)


async def _resolve(host: str, port: int) -> list[Target]:
    """The addresses of a name, families in turn, beginning with the one the system prefers."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except ValueError as error:  # of the codec for names, or a zero in one
        raise ConnectError(
            f"cannot find {host!r}: that is no host name", code="ENOTFOUND"
        ) from error
    except OSError as error:
        raise _connect_error(error, f"cannot find {host}") from error
    unique: list[Target] = list(dict.fromkeys((entry[0], entry[4]) for entry in found))
    first = [target for target in unique if target[0] == unique[0][0]]
    second = [target for target in unique if target[0] != unique[0][0]]
    both = chain.from_iterable(zip_longest(first, second))
    return [target for target in both if target is not None][:MAX_ADDRESSES]


def _has_scope(target: Target) -> bool:
    """Whether it is an IPv6 address of one interface, which the loop's own dial would forget."""
    return len(target[1]) == 4 and bool(target[1][3])


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


async def _race(targets: Sequence[Target], asked: str) -> tuple[socket.socket, tuple[Any, ...]]:
    """The first socket that connects. The next target starts when one fails or stays silent."""
    causes: dict[str, Exception] = {}
    running: dict[asyncio.Task[socket.socket], Target] = {}
    waiting = list(reversed(targets))
    try:
        while waiting or running:
            if waiting:
                target = waiting.pop()
                name = f"covey tcp dial {target[1][0]}"
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


async def _call(
    target: Target,
    asked: str,
    make_shell: Callable[[HostPort], StreamShell],
    options: tuple[Option, ...],
) -> StreamShell:
    """Connect to the one target there is: the loop's own way takes half as long as ours."""
    host, port = target[1][:2]
    caller = _Caller(lambda: make_shell((unmapped(host), port)), options)
    try:
        await asyncio.get_running_loop().create_connection(lambda: caller, host, port)
    except OSError as error:
        _call_ended(caller.shell, error)
        raise _connect_error(error, f"cannot connect to {asked}", asked) from error
    except BaseException:
        _call_ended(caller.shell, None)
        raise
    if caller.failure is not None or caller.shell is None:
        _call_ended(caller.shell, caller.failure)
        raise caller.failure or ConnectionAborted("the connection was gone at once")
    return caller.shell


async def _start(opened: socket.socket, shell: StreamShell) -> StreamShell:
    try:
        await asyncio.get_running_loop().create_connection(lambda: shell, sock=opened)
    except BaseException as error:
        opened.close()
        _call_ended(shell, error if isinstance(error, Exception) else None)
        raise
    return shell


def _call_ended(shell: StreamShell | None, error: Exception | None) -> None:
    if shell is not None:
        shell.abort(ConnectionAborted("the dial was called off"))
        shell.connection_lost(error)


def _connect_error(error: Exception, what: str, asked: str | None = None) -> ConnectError:
    number = getattr(error, "errno", None)
    code = errno.errorcode.get(number) if isinstance(number, int) else None
    if isinstance(error, socket.gaierror):
        code = "ENOTFOUND"
    if isinstance(error, socket.gaierror):
        reason = error.strerror or str(error)
    else:  # asyncio's own text repeats the socket address
        reason = os.strerror(number) if code is not None and number else str(error)
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
