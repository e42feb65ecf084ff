"""The benchmark's arithmetic: which way a ratio points, what is met, what is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench.report import Result, spread, table, write
from bench.rows import Row, WakeupRun, rows


def row(
    name: str = "bulk",
    *,
    more_is_better: bool = True,
    at_least: float | None = 1.3,
    at_most: float | None = None,
) -> Row:
    def unused() -> tuple[float, str]:
        raise AssertionError("not measured here")

    return Row(name, "MB/s", "work", unused, unused, more_is_better, at_least, at_most)


def test_a_ratio_compares_medians() -> None:
    result = Result(row(), [100.0, 300.0, 200.0], [100.0, 1.0, 900.0])
    assert result.ratio == 2.0


def test_a_ratio_is_inverted_where_less_is_better() -> None:
    result = Result(row(more_is_better=False), [10.0], [20.0])
    assert result.ratio == 2.0


@pytest.mark.parametrize(("covey", "met"), [(130.0, True), (129.0, False)])
def test_a_row_is_met_from_its_target_on(covey: float, met: bool) -> None:
    assert Result(row(), [covey], [100.0]).met is met


@pytest.mark.parametrize(("covey", "met"), [(10.0, True), (10.1, False)])
def test_an_absolute_target_counts_whatever_the_reference_needs(covey: float, met: bool) -> None:
    only = row(more_is_better=False, at_least=None, at_most=10.0)
    assert Result(only, [covey], [1.0]).met is met


def test_rows_are_written_and_those_not_run_again_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "out" / "latest.json"
    write([Result(row("bulk"), [1.0], [1.0]), Result(row("small"), [2.0], [1.0])], path)
    write([Result(row("bulk"), [3.0], [1.0], "a note")], path)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert [(entry["name"], entry["ratio"]) for entry in written] == [("bulk", 3.0), ("small", 2.0)]
    assert {"name", "covey", "reference", "unit", "ratio"} <= set(written[0])


def test_the_table_shows_every_row() -> None:
    results = [Result(row("bulk"), [1.0, 2.0], [1.0]), Result(row("small"), [1.0], [3.0], "note")]
    assert table(results, "title").row_count == 2
    assert spread([1.0, 1000.0, 2000.0]) == "1,000 [dim](1 - 2,000)[/dim]"


def test_the_rows_are_those_that_were_promised() -> None:
    promised = {
        "bulk": 1.3,
        "small": 2.0,
        "small-corked": 0.5,
        "handshakes": 2.0,
        "round-trip": 1.0,
        "staging": None,
        "connections": 1.0,
        "replicate-small": 2.0,
        "replicate-large": 2.0,
        "replicate-memory": None,
        "append": None,
        "append-batch": None,
        "feeds": None,
        "feeds-memory": None,
        "wakeup-announce": None,
        "wakeup-bytes": 50.0,
        "wakeup-channels": 50.0,
        "wakeup-time": 1.0,
    }
    assert {entry.name: entry.at_least for entry in rows()} == promised
    assert next(entry for entry in rows() if entry.name == "staging").at_most == 10.0
    assert not {entry.name for entry in rows() if not entry.more_is_better} ^ {
        "staging",
        "connections",
        "replicate-memory",
        "feeds",
        "feeds-memory",
        "wakeup-announce",
        "wakeup-bytes",
        "wakeup-channels",
        "wakeup-time",
    }
    together = {entry.name for entry in rows() if entry.group == "wakeup"}
    assert together == {"wakeup-announce", "wakeup-bytes", "wakeup-channels", "wakeup-time"}


def test_the_figures_of_one_run_are_asked_for_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []

    @contextmanager
    def fake(command: list[str]) -> Iterator[object]:
        runs.append(command)

        class Run:
            def line(self, _field: str) -> dict[str, int]:
                return {"bytes": 10 * len(runs), "sec": len(runs)}

        yield Run()

    monkeypatch.setattr("bench.rows.running", fake)
    run = WakeupRun("--n", "5")
    taken = [run.figure(name)[0] for name in ("bytes", "sec", "bytes", "bytes", "sec")]
    assert taken == [10, 1, 20, 30, 3]
    assert len(runs) == 3
