"""Every bound is documented, sane, and enforced somewhere."""

from __future__ import annotations

import ast
import dataclasses

import pytest

from covey.errors import UsageError
from covey.limits import MAX_FRAME, Limits
from tests.source_tree import read_modules

MODULES = read_modules()
FIELDS = [field.name for field in dataclasses.fields(Limits)]
NOT_YET_USED: set[str] = set()
"""Bounds that nothing enforces so far: this set only shrinks."""


def documented_fields() -> set[str]:
    """Fields of `Limits` with a docstring right after them."""
    [limits] = [
        node
        for node in MODULES["covey.limits"].body
        if isinstance(node, ast.ClassDef) and node.name == "Limits"
    ]
    return {
        field.target.id
        for field, text in zip(limits.body, limits.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def fields_read() -> set[str]:
    """Names read as attributes of something called limits, anywhere outside `limits.py`."""
    return {
        node.attr
        for name, tree in MODULES.items()
        if name != "covey.limits"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("limits")
    }


@pytest.mark.parametrize("name", FIELDS)
def test_every_limit_is_documented(name: str) -> None:
    assert name in documented_fields()


def test_every_limit_is_enforced_somewhere() -> None:
    assert set(FIELDS) - fields_read() <= NOT_YET_USED


@pytest.mark.parametrize("name", FIELDS)
def test_every_default_is_a_real_bound(name: str) -> None:
    value = getattr(Limits(), name)
    assert isinstance(value, int | float)
    assert 0 < value < float("inf")


def test_limits_are_frozen_and_given_by_name() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().max_frame = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        Limits(1)  # type: ignore[call-arg]
    assert dataclasses.replace(Limits(), max_frame=9).max_frame == 9


def test_the_defaults_fit_one_another() -> None:
    limits = Limits()
    assert limits.max_per_ip < limits.max_incoming < limits.max_connections
    assert 0 < limits.keep_alive < limits.idle_timeout
    assert limits.max_staged_per_key < limits.max_staged
    assert limits.max_batch < limits.max_frame < 1 << 24
    assert limits.max_handshakes <= limits.max_incoming


def test_the_defaults_leave_room_in_1024_descriptors() -> None:
    limits = Limits()
    open_at_once = limits.max_connections + limits.max_handshakes + limits.max_dials
    assert open_at_once <= 1024 - 96
    assert limits.max_connections - limits.max_incoming >= limits.max_dials


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("max_connections", "5", "a whole number, not str"),
        ("max_frame", True, "a whole number, not bool"),
        ("max_queued", 1.5, "a whole number, not float"),
        ("idle_timeout", None, "a number, not NoneType"),
        ("close_timeout", False, "a number, not bool"),
    ],
)
def test_a_limit_of_the_wrong_type_is_named(name: str, value: object, wanted: str) -> None:
    with pytest.raises(TypeError, match=f"the limit {name} is {wanted}"):
        Limits(**{name: value})  # type: ignore[arg-type]


def test_a_time_may_be_a_whole_number() -> None:
    assert Limits(idle_timeout=3).idle_timeout == 3


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_bound_that_bounds_nothing_is_refused(value: float) -> None:
    with pytest.raises(UsageError, match="idle_timeout"):
        Limits(idle_timeout=value)


def test_a_frame_that_its_length_prefix_cannot_tell_is_refused() -> None:
    assert Limits(max_frame=MAX_FRAME).max_frame == (1 << 24) - 1
    with pytest.raises(UsageError, match="max_frame"):
        Limits(max_frame=MAX_FRAME + 1)
