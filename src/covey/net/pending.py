"""A raw connection between its first byte and the end of its handshake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from covey.address import Step
from covey.errors import (
    ConnectError,
    ConnectionAborted,
    ConnectTimeout,
    CoveyError,
    HandshakeError,
    HandshakeTimeout,
    SelfConnection,
)
from covey.host_port import show
from covey.limits import Limits
from covey.net.attempt import Attempt, AttemptObserver
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection
from covey.net.handshakes import Handshake, Identity
from covey.net.partial_frames import PartialFrames
from covey.net.stream_shell import StreamShell
from covey.wire.session import Opened

if TYPE_CHECKING:
    from covey.net.transports import Transport


class Pending:
    """One attempt: owns the shell until a `Connection` takes over or the handshake has failed.

    Made by the endpoint for each dial and each accepted connection. `settled(self, connection)` is
    called exactly once for each shell: with the connection, or with None after a failure, when the
    raw connection is closed.
    """

    __slots__ = (
        "_aborted",
        "_connection",
        "_deadline",
        "_frames",
        "_handshake",
        "_identity",
        "_likely_key",
        "_limits",
        "_observer",
        "_remote",
        "_result",
        "_settled",
        "_shell",
        "_started",
        "attempt",
    )

    def __init__(
        self,
        attempt: Attempt,
        handshake: Handshake,
        identity: Identity,
        *,
        limits: Limits,
        observer: AttemptObserver | None,
        settled: Callable[[Pending, Connection | None], None],
        likely_key: bytes | None = None,
        frames: PartialFrames | None = None,
    ) -> None:
        self.attempt = attempt
        self._handshake = handshake
        self._identity = identity
        self._limits = limits
        self._observer = observer
        self._settled = settled
        self._likely_key = likely_key
        self._frames = frames
        self._remote = (attempt.host, attempt.port)
        self._shell: StreamShell | None = None
        self._started = False
        self._connection: Connection | None = None
        self._aborted: ConnectError | None = None
        self._result: asyncio.Future[Connection] | None = None
        self._deadline: asyncio.Timeout | None = None

    @property
    def raw(self) -> bool:
        """Whether a raw connection exists, so that `settled` will be called."""
        return self._shell is not None

    def make_shell(self, remote: tuple[str, int], step: Step | None = None) -> StreamShell:
        """The shell for a raw connection to `remote`; the handshake's budget begins now."""
        session = self._handshake.session(
            self._identity,
            is_initiator=self.attempt.initiator,
            step=step,
            now=asyncio.get_running_loop().time(),
            limits=self._limits,
            likely_key=self._likely_key,
        )
        self._remote = remote
        self._shell = StreamShell(
            session,
            self,
            opening=self,
            limits=self._limits,
            quick=self._handshake.quick,
            frames=self._frames,
        )
        return self._shell

    async def dial(
        self,
        transport: Transport,
        where: Step,
        step: Step,
        timeout: float | None,
    ) -> Connection:
        """Connect to `where`, then shake hands as `step` says, all within `timeout` seconds."""
        loop = asyncio.get_running_loop()
        self._result = loop.create_future()
        most, timer = self._limits.connect_timeout, None
        try:
            if timeout is not None:
                timer = loop.call_later(timeout, self._out_of_time, timeout)
                most = min(most, timeout)
            await self._dial_raw(transport, where, step, most)
            return await self._result
        except asyncio.CancelledError:
            self.abort(ConnectionAborted("the dial was called off"))
            if self._connection is not None:
                self._connection.abort(None, CloseReason.ABORTED)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if self._result.done() and not self._result.cancelled():
                self._result.exception()  # looked at, also when the caller had gone

    async def _dial_raw(
        self,
        transport: Transport,
        where: Step,
        step: Step,
        timeout: float,
    ) -> None:
        host, port = self.attempt.host, self.attempt.port
        try:
            async with asyncio.timeout(timeout) as self._deadline:
                if self._aborted is not None:
                    raise self._aborted
                await transport.dial(where, lambda remote: self.make_shell(remote, step))
        except TimeoutError as error:
            if self._aborted is not None:
                raise self._aborted from None
            raise ConnectTimeout(
                f"{show(host, port)} did not answer within {timeout:g} s",
                address=str(self.attempt.address),
                code="ETIMEDOUT",
            ) from error
        finally:
            self._deadline = None

    def _out_of_time(self, timeout: float) -> None:
        """All the time is over; before there is a raw connection its own budget sees to that."""
        if self._shell is not None:
            address = str(self.attempt.address)
            text = f"no complete handshake within the {timeout:g} s of the dial"
            self.abort(HandshakeTimeout(text, address=address))

    def abort(self, error: ConnectError) -> None:
        """Call it off: `dial` raises `error`, the observer is told when the socket is closed."""
        if self._aborted is None:
            self._aborted = error
        if self._shell is not None and self._connection is None:
            self._shell.abort(error)
        elif self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(0.0)  # refused by one that ends the dial at this moment

    # What the shell calls

    def shell_started(self) -> None:
        """The raw connection is up."""
        self._started = True
        if self._observer is not None:
            self._observer.handshaking(self.attempt)

    def shell_opened(self, opened: Opened) -> None:
        """The handshake is over: hand the shell on, unless the remote is this very node."""
        shell = self._shell
        if shell is None:
            return
        if self._handshake.is_self(opened, self._identity):
            address_text = str(self.attempt.address) if self.attempt.address else None
            shell.abort(SelfConnection("the remote is this very node", address=address_text))
            return
        connection = self._connection = Connection(
            shell,
            opened,
            attempt=self.attempt,
            remote_address=self._remote,
            limits=self._limits,
            multiplexed=self._handshake.multiplexed,
        )
        self._settled(self, connection)
        if self._result is not None and not self._result.done():
            self._result.set_result(connection)

    def messages_received(self, messages: list[bytes]) -> None:
        """Not called: there are no messages before the end of the handshake."""

    def shell_ended(self) -> None:
        """Not called: the shell takes an end before the handshake's for a failure."""

    def shell_writable(self) -> None:
        """The handshake's few bytes never wait."""

    def shell_closed(self, reason: CloseReason, error: CoveyError | None) -> None:
        """The raw connection is closed before the handshake was over."""
        failure = self._failure(reason, error)
        self._settled(self, None)
        if self._observer is not None and self._started:
            self._observer.handshake_failed(self.attempt, failure)
        if self._result is not None and not self._result.done():
            self._result.set_exception(failure)

    def _failure(self, reason: CloseReason, error: CoveyError | None) -> ConnectError:
        text = f"{show(self.attempt.host, self.attempt.port)}: {error or reason}"
        if isinstance(error, ConnectError):
            if error.address is None and self.attempt.address is not None:
                error.address = str(self.attempt.address)
            return error
        failure = HandshakeError(
            text, address=str(self.attempt.address) if self.attempt.address else None
        )
        failure.__cause__ = error
        return failure
