"""What holds for every test: an async one leaves no task, timer or socket behind."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.waiting import Belongings


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> None:
    """Watch the async tests only: the others have no loop."""
    function = getattr(request, "function", None)
    if inspect.iscoroutinefunction(inspect.unwrap(function) if function else None):
        request.getfixturevalue("watched_loop")


@pytest_asyncio.fixture
async def watched_loop() -> AsyncIterator[None]:
    """Set up before every other fixture of the test, and so looked at after all of them."""
    before = Belongings()
    yield
    left = await before.left()
    assert not left, "the test left behind:\n  " + "\n  ".join(left)
