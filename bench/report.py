"""Figures become a table for people and rows of JSON for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench.rows import Row

if TYPE_CHECKING:
    from rich.table import Table

OUT = Path(__file__).parent / "out" / "latest.json"


@dataclass(frozen=True, slots=True)
class Result:
    """All figures of one row, in the order in which they were taken."""

    row: Row
    covey: list[float]
    reference: list[float]
    note: str = ""

    @property
    def ratio(self) -> float:
        """covey against the reference, medians; 1 or more means that covey is better."""
        ours, theirs = median(self.covey), median(self.reference)
        return ours / theirs if self.row.more_is_better else theirs / ours

    @property
    def met(self) -> bool:
        """Whether the row's target is reached."""
        if self.row.at_most is not None and median(self.covey) > self.row.at_most:
            return False
        return self.row.at_least is None or self.ratio >= self.row.at_least

    @property
    def target(self) -> str:
        """The target, to read."""
        if self.row.at_most is not None:
            return f"<= {self.row.at_most:g} {self.row.unit}"
        return "" if self.row.at_least is None else f">= {self.row.at_least:g} x"

    def as_json(self) -> dict[str, object]:
        """The row as it is written to the file."""
        return {
            "name": self.row.name,
            "covey": median(self.covey),
            "reference": median(self.reference),
            "unit": self.row.unit,
            "ratio": round(self.ratio, 3),
            "target": self.target,
            "met": self.met,
            "covey_all": self.covey,
            "reference_all": self.reference,
            "note": self.note,
        }


def write(results: list[Result], path: Path = OUT) -> None:
    """Write the rows; those of an earlier run with other names stay."""
    kept: list[dict[str, object]] = []
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
    fresh = {result.row.name: result.as_json() for result in results}
    merged = [fresh.pop(str(old["name"]), old) for old in kept] + list(fresh.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")


def number(value: float) -> str:
    """Three figures are enough, thousands are grouped."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: list[float]) -> str:
    """The median, and the range when there is one."""
    middle = number(median(values))
    if len(values) < 2:
        return middle
    return f"{middle} [dim]({number(min(values))} - {number(max(values))})[/dim]"


def table(results: list[Result], title: str) -> Table:
    """The comparison, to print."""
    from rich.table import Table

    view = Table(title=title, title_justify="left")
    for column in ("row", "work", "covey", "Node", "unit", "ratio", "wanted"):
        right = column in ("covey", "Node", "ratio")
        view.add_column(column, justify="right" if right else "left")
    for result in results:
        colour = "green" if result.met else "red"
        view.add_row(
            result.row.name,
            result.row.work + (f"\n[dim]covey at {result.note}[/dim]" if result.note else ""),
            spread(result.covey),
            spread(result.reference),
            result.row.unit,
            f"[{colour}]{result.ratio:.2f}[/{colour}]",
            result.target,
        )
    return view
