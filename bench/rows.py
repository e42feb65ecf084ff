"""The rows of the table: what runs on both sides, and which figure counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.processes import measure, node, python, running

Measured = tuple[float, str]  # the figure, and a note on it


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. `at_least` is the ratio wanted, `at_most` covey's figure wanted."""

    name: str
    unit: str
    work: str
    covey: Callable[[], Measured]
    reference: Callable[[], Measured]
    more_is_better: bool = True
    at_least: float | None = None
    at_most: float | None = None
    pairs: int = 5
    group: str = ""
    """A name under which it is asked for together with others."""


@dataclass(frozen=True, slots=True)
class TwoProcesses:
    """A server and a client of one side, with the arguments that both sides understand."""

    what: str
    figure: str
    program: str = "node-stream.cjs"
    options: dict[str, int] = field(default_factory=dict)
    module: str = "bench.covey_peer"
    on_server: bool = False
    cpu_each: bool = False

    def covey(self) -> Measured:
        """Both ends are covey's."""
        options = [
            part for name, value in self.options.items() for part in (f"--{name}", f"{value}")
        ]
        both = ["--what", self.what, *options]
        server = python(self.module, "--mode", "server", *both)
        client = python(self.module, "--mode", "client", *both)
        return self._measure(server, client)

    def node(self) -> Measured:
        """Both ends are Node's."""
        both = [
            f"--what={self.what}",
            *(f"--{name}={value}" for name, value in self.options.items()),
        ]
        server = node(self.program, "--mode=server", *both)
        client = node(self.program, "--mode=client", *both)
        return self._measure(server, client)

    def _measure(self, server: list[str], client: list[str]) -> Measured:
        figure = measure(
            server, client, self.figure, on_server=self.on_server, cpu_each=self.cpu_each
        )
        return figure, ""


@dataclass(frozen=True, slots=True)
class Alone:
    """One program of each side that does the work by itself."""

    what: str
    figure: str
    options: dict[str, int] = field(default_factory=dict)

    def covey(self) -> Measured:
        """The work done by covey."""
        options = [
            part for name, value in self.options.items() for part in (f"--{name}", f"{value}")
        ]
        return self._measure(python("bench.covey_log", "--what", self.what, *options))

    def node(self) -> Measured:
        """The work done by Node."""
        options = [f"--{name}={value}" for name, value in self.options.items()]
        return self._measure(node("node-replicate.cjs", f"--what={self.what}", *options))

    def _measure(self, command: list[str]) -> Measured:
        with running(command) as program:
            return float(program.line(self.figure)[self.figure]), ""


class WakeupRun:
    """A group of logs of which a few changed, with hints or without: three figures of one run."""

    def __init__(self, *options: str) -> None:
        self._command = python("bench.covey_wakeup", *options)
        self._last: dict[str, float] = {}

    def figure(self, name: str) -> Measured:
        """That figure of a run; of the last one, unless it was asked for before."""
        if name not in self._last:
            with running(self._command) as program:
                line = program.line(name)
            self._last = {key: float(value) for key, value in line.items()}
        return self._last.pop(name), ""


def _staging(command: list[str], size: int) -> Measured:
    with running(command) as program:
        live = [line for line in program.lines() if line["live"]]
        figures = {int(line["n"]): float(line["usPerStage"]) for line in live}
        if size not in figures:
            raise program.failure(f"no figure for {size}")
    return figures[size], ", ".join(f"{n:,}: {micros:.1f}" for n, micros in figures.items())


def rows(scale: float = 1.0) -> list[Row]:
    """Every row, in the order of the table; `scale` shrinks the work for a quick look."""

    def some(amount: int) -> int:
        return max(1, int(amount * scale))

    bulk = TwoProcesses("blast", "MBps", options={"bytes": some(512 << 20), "chunk": 65536})
    small = {"count": some(300_000), "size": 100}
    one_by_one = TwoProcesses("small", "perSec", options={**small, "batch": 1})
    corked = TwoProcesses("small", "perSec", options={**small, "batch": 64})
    shake = TwoProcesses("shake", "perSec", options={"n": some(500)})
    asked = {"count": some(20_000), "size": 100}
    round_trip = TwoProcesses("round-trip", "perSec", "node-round-trip.cjs", asked, cpu_each=True)
    idle = TwoProcesses(
        "connections",
        "bytesPerConnection",
        "node-connections.cjs",
        {"n": some(4_000)},
        on_server=True,
    )

    def two(
        name: str,
        unit: str,
        work: str,
        sides: TwoProcesses,
        at_least: float,
        *,
        more_is_better: bool = True,
        pairs: int = 5,
    ) -> Row:
        return Row(name, unit, work, sides.covey, sides.node, more_is_better, at_least, None, pairs)

    return [
        two("bulk", "MB/s", "512 MiB in 64 KiB messages", bulk, 1.3),
        two("small", "messages/s", "300,000 messages of 100 bytes, one by one", one_by_one, 2.0),
        two("small-corked", "messages/s", "the same, caller corks 64", corked, 0.5),
        two("handshakes", "connects/s", "500 connects in a row, one message each way", shake, 2.0),
        two(
            "round-trip", "answers/s", "100-byte request and answer, one at a time", round_trip, 1.0
        ),
        Row(
            "staging",
            "us each",
            "100,000 candidates, live view attached (Node: 16,000)",
            lambda: _staging(python("bench.covey_staging"), 100_000),
            lambda: _staging(node("node-staging.cjs"), 16_000),
            more_is_better=False,
            at_most=10.0,
            pairs=3,
        ),
        two(
            "connections",
            "bytes each",
            "4,000 idle secret streams with a muxer each",
            idle,
            1.0,
            more_is_better=False,
            pairs=3,
        ),
        *_log_rows(some),
        *_wakeup_rows(some),
        _announce_row(some),
    ]


def _announce_row(some: Callable[[int], int]) -> Row:
    def run(command: list[str]) -> Measured:
        with running(command) as program:
            return float(program.line("usPerPeer")["usPerPeer"]), ""

    peers = some(1_000)
    return Row(
        "wakeup-announce",
        "us each",
        "one announce to 1,000 peers, in memory: until the last has heard it",
        lambda: run(python("bench.wakeup_announce", "--n", f"{peers}")),
        lambda: run(node("node-wakeup-announce.cjs", f"--n={peers}")),
        more_is_better=False,
        group="wakeup",
    )


def _wakeup_rows(some: Callable[[int], int]) -> list[Row]:
    """The reference is covey itself, without hints: every log has its channel."""
    size = ["--n", str(max(100, some(10_000))), "--changed", "10"]
    hints, every = WakeupRun(*size), WakeupRun(*size, "--without")
    work = "10,000 logs on two peers, 10 changed while apart (reference: covey without wakeup)"

    def row(name: str, unit: str, field: str, what: str, at_least: float) -> Row:
        return Row(
            name,
            unit,
            what,
            lambda: hints.figure(field),
            lambda: every.figure(field),
            more_is_better=False,
            at_least=at_least,
            pairs=3,
            group="wakeup",
        )

    return [
        row("wakeup-bytes", "bytes", "bytes", f"{work}: on the wire, both ways", 50.0),
        row("wakeup-channels", "channels", "channels", "the same: logs with a channel", 50.0),
        row("wakeup-time", "s", "sec", "the same: from the connect until the 10 are here", 1.0),
    ]


def _log_rows(some: Callable[[int], int]) -> list[Row]:
    def replicate(blocks: int, size: int, figure: str = "blocksPerSec") -> TwoProcesses:
        options = {"blocks": some(blocks), "size": size}
        return TwoProcesses(
            "replicate", figure, "node-replicate.cjs", options, module="bench.covey_log"
        )

    small, large = replicate(20_000, 1024), replicate(2_000, 65_536)
    reader = replicate(2_000, 65_536, "peakBytes")
    append = Alone("append", "blocksPerSec", {"blocks": some(5_000)})
    batch = Alone("append-batch", "blocksPerSec", {"blocks": some(20_000)})
    opening = Alone("feeds", "firstCoreMs", {"n": some(10_000)})
    memory = Alone("feeds", "bytesPerFeed", {"n": some(10_000), "open": some(10_000)})
    unit = "blocks/s"
    return [
        Row(
            "replicate-small", unit, "20,000 blocks of 1 KiB from disk to disk, encrypted",
            small.covey, small.node, at_least=2.0, pairs=3,
        ),
        Row(
            "replicate-large", unit, "2,000 blocks of 64 KiB, the same way",
            large.covey, large.node, at_least=2.0, pairs=3,
        ),
        Row(
            "replicate-memory", "bytes", "the reader of those 2,000 blocks, resident at its peak",
            reader.covey, reader.node, more_is_better=False, pairs=3,
        ),
        Row(
            "append", unit, "5,000 blocks of 1 KiB, each awaited (ours: each on disk)",
            append.covey, append.node, pairs=3,
        ),
        Row(
            "append-batch", unit, "20,000 blocks of 1 KiB, 64 at a time",
            batch.covey, batch.node, pairs=3,
        ),
        Row(
            "feeds", "ms", "a store of 10,000 logs: until the first can be read",
            opening.covey, opening.node, more_is_better=False, pairs=3,
        ),
        Row(
            "feeds-memory", "bytes each", "10,000 logs of that store open at once",
            memory.covey, memory.node, more_is_better=False, pairs=1,
        ),
    ]  # fmt: skip
