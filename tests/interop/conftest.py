"""Tests marked `interop` need Node: where it is missing they are skipped, in CI they fail."""

from __future__ import annotations

import pytest

from tests.interop import harness

_skipped: list[str] = []


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail an interop test whose counterpart cannot run, with the reason in plain words."""
    if item.get_closest_marker("interop") is None:
        return
    reason = harness.missing()
    if reason is None:
        return
    if harness.in_ci():
        pytest.fail(f"{reason}; in CI the interop tests must run", pytrace=False)
    _skipped.append(reason)
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not tested, so that a green run without Node is not mistaken for the whole."""
    if _skipped:
        terminalreporter.write_sep("-", "interop tests skipped", yellow=True)
        terminalreporter.write_line(f"{len(_skipped)} interop tests were skipped: {_skipped[0]}.")
