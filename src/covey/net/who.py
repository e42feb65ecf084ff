"""Who an endpoint is: known from the start, or to be awaited first."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable

from covey.errors import ClosedError, ConnectError, UsageError
from covey.keys import KeyPair
from covey.net.handshakes import Identity


class Who:
    """The identity of a node whose key pair may still have to come from somewhere else."""

    __slots__ = ("_coming", "_id", "_known")

    def __init__(self, key_pair: KeyPair | Awaitable[KeyPair] | None, id: bytes) -> None:  # noqa: A002
        self._id = id
        self._known: Identity | None = None
        self._coming: Awaitable[KeyPair] | None = None
        if isinstance(key_pair, Awaitable):
            self._coming = key_pair
        else:
            self._known = Identity(key_pair or KeyPair.generate(), id)

    def __str__(self) -> str:
        return "(key awaited)" if self._known is None else self._known.key_pair.public_key.hex()[:8]

    @property
    def awaited(self) -> bool:
        """Whether `wait` has to come first."""
        return self._known is None

    @property
    def identity(self) -> Identity:
        """The key pair and the id; `UsageError` while the key pair is awaited."""
        if self._known is None:
            raise UsageError("the key pair of this endpoint is still awaited")
        return self._known

    async def wait(self) -> None:
        """Return when the key pair is there, whoever asked first.

        Raises `ConnectError` where it cannot be had, each time; `ClosedError` after `close`.
        """
        if self._coming is None:
            raise ClosedError("this endpoint is closed")
        coming = self._coming = asyncio.ensure_future(self._coming)
        try:
            key_pair = await asyncio.shield(coming)
        except asyncio.CancelledError:
            if coming.cancelled():
                raise ClosedError(
                    "this endpoint is closed, or its key pair was called off"
                ) from None
            raise
        except Exception as error:
            kind = type(error).__name__  # not its text: who knows what it tells of a key
            raise ConnectError(f"the key pair of this endpoint cannot be had: {kind}") from error
        if not isinstance(key_pair, KeyPair):
            raise ConnectError(f"a KeyPair was awaited, not {type(key_pair).__name__}")
        self._known = Identity(key_pair, self._id)

    def close(self) -> None:
        """Call off what is still awaited."""
        coming, self._coming = self._coming, None
        if self._known is not None:
            return
        if isinstance(coming, asyncio.Future):
            coming.cancel()
        elif inspect.iscoroutine(coming):
            coming.close()
