"""`python -m bench [NAME...]`: covey and Node in turn, medians, a table and a JSON file."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys

from rich.console import Console

from bench import report
from bench.loops import loop_factory
from bench.processes import BenchError, check_node, raise_descriptor_limit
from bench.rows import Row, rows

QUICK = 0.05


def compare(row: Row, pairs: int, console: Console) -> report.Result:
    """Measure both sides in turn, so that a busy moment of the machine hits both."""
    ours: list[float] = []
    theirs: list[float] = []
    note = ""
    for number in range(pairs):
        console.print(f"[dim]{row.name}: pair {number + 1} of {pairs}[/dim]")
        figure, note = row.covey()
        ours.append(figure)
        theirs.append(row.reference()[0])
    return report.Result(row, ours, theirs, note)


def environment() -> str:
    """What the figures were taken with."""
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    loop = "uvloop" if loop_factory() is not None else "asyncio's own loop (uvloop not installed)"
    return (
        f"Python {platform.python_version()}, {loop}, Node {version.stdout.strip()}, "
        f"{os.cpu_count()} CPUs, {platform.system()}"
    )


def main() -> int:
    """Run the chosen rows; 0 when all ran, whatever the figures say."""
    known = {row.name: row for row in rows()}
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    groups = {row.group for row in known.values() if row.group}
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join([*known, *sorted(groups)])}"
    )
    parser.add_argument("--pairs", type=int, help="measurements of each side (default: 3 or 5)")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the work")
    options = parser.parse_args()
    console = Console(stderr=True)
    if unknown := [name for name in options.names if name not in known.keys() | groups]:
        parser.error(f"no row named {', '.join(unknown)}; there are {', '.join(known)}")
    raise_descriptor_limit()
    chosen = [
        row
        for row in rows(QUICK if options.quick else 1.0)
        if not options.names or {row.name, row.group} & {*options.names}
    ]
    out = report.OUT.with_name("quick.json") if options.quick else report.OUT
    results: list[report.Result] = []
    try:
        check_node()
        for row in chosen:
            results.append(compare(row, options.pairs or row.pairs, console))
            report.write(results, out)
    except BenchError as error:
        console.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        return 1
    wide = Console() if sys.stdout.isatty() else Console(width=130)
    wide.print(report.table(results, f"covey and Node side by side ({environment()})"))
    console.print(f"[dim]written to {out.relative_to(out.parents[2])}[/dim]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
