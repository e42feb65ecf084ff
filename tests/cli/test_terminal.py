"""On a terminal: the bar and the table are drawn, typing works, Ctrl-C and Ctrl-D end in order."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.cli.support import HOST, LOCAL, PATIENCE, PIPE, covey
from tests.waiting import until

COMMAND = (sys.executable, "-m", "covey.cli")


class Terminal:
    """A process whose streams are a terminal, and what the screen got so far."""

    def __init__(self, leader: int, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.screen = ""
        self._leader = leader
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(leader, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._leader, 1 << 16)
        except OSError:  # the last process of the terminal is gone
            self._loop.remove_reader(self._leader)
            return
        self.screen += data.decode(errors="replace")

    async def until(self, text: str) -> None:
        await until(lambda: text in self.screen, PATIENCE)

    def type(self, text: str) -> None:
        os.write(self._leader, text.encode())


def take_terminal() -> None:
    """In the new process: the terminal of its stderr is its own, so that Ctrl-C reaches it."""
    os.setsid()
    fcntl.ioctl(2, termios.TIOCSCTTY, 0)


@asynccontextmanager
async def terminal(*arguments: str, **streams: Any) -> AsyncIterator[Terminal]:
    """`covey` on a terminal of 100 columns; `streams` are those that are something else."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    given = {name: streams.get(name, follower) for name in ("stdin", "stdout", "stderr")}
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        **given,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        preexec_fn=take_terminal,
    )
    os.close(follower)
    shown = Terminal(leader, process)
    try:
        async with asyncio.timeout(PATIENCE):
            yield shown
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        asyncio.get_running_loop().remove_reader(leader)
        os.close(leader)
        if process.stdin is not None:
            process.stdin.close()
        if process.stdout is not None:
            await process.stdout.read()


async def test_a_receiver_on_a_terminal_sees_a_bar_and_its_file_gets_the_bytes(
    tmp_path: Path,
) -> None:
    copy = tmp_path / "copy"
    async with covey("pipe", "bar", "--json", *LOCAL, stdin=PIPE) as sender:
        peer = f"{HOST}:{await sender.port()}"
        with copy.open("wb") as target:
            async with terminal("pipe", "bar", *LOCAL, "--peer", peer, stdout=target) as shown:
                await shown.until("only receiving")
                sender.write(b"x" * 500_000)
                await shown.until("receiving")
                await shown.until("━")
                sender.write(b"", end=True)
                assert await shown.process.wait() == 0
                await shown.until("done: sent 0 B")
        assert await sender.end() == 0
    assert copy.stat().st_size == 500_000


async def test_two_people_type_to_each_other_and_ctrl_d_ends_both() -> None:
    async with terminal("pipe", "chat", *LOCAL) as here:
        await here.until("(port ")
        port = here.screen.partition("(port ")[2].partition(")")[0]
        async with terminal("pipe", "chat", *LOCAL, "--peer", f"{HOST}:{port}") as there:
            await there.until("proved that it knows the topic")
            here.type("good morning\n")
            await there.until("good morning")
            there.type("and to you\n")
            await here.until("and to you")
            assert "━" not in here.screen
            here.type("\x04")
            assert (await here.process.wait(), await there.process.wait()) == (0, 0)


async def test_ctrl_c_ends_a_waiting_pipe_in_order() -> None:
    async with terminal("pipe", "never", *LOCAL) as shown:
        await shown.until("(port ")
        shown.type("\x03")
        assert await shown.process.wait() == 130
        await shown.until("covey: interrupted")
        assert "Traceback" not in shown.screen


async def test_join_draws_a_table_that_shows_who_is_connected() -> None:
    async with covey("join", "meadow", "--json", *LOCAL, stdout=PIPE) as other:
        await other.until_output(b'"type":"joined"')
        port = str(other.output).partition('"port":')[2].partition(",")[0].partition("}")[0]
        async with terminal("join", "meadow", *LOCAL, "--peer", f"{HOST}:{port}") as shown:
            await shown.until("what happened")
            await shown.until("1 connected")
            shown.type("\x03")
            assert await shown.process.wait() == 130
            assert "Traceback" not in shown.screen


async def test_the_table_says_why_a_peer_is_not_connected() -> None:
    with socket.socket() as holder:
        holder.bind((HOST, 0))  # nobody listens there
        peer = f"{HOST}:{holder.getsockname()[1]}"
        async with terminal("join", "meadow", *LOCAL, "--peer", peer) as shown:
            await shown.until("waiting")
            await shown.until("refused")
            await shown.until("next")
            shown.type("\x03")
            assert await shown.process.wait() == 130
