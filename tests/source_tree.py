"""What the tests about the source itself share: modules, their trees, their imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "src" / "covey"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name: `target` is the dotted module, `typing_only` under `TYPE_CHECKING`."""

    target: str
    line: int
    typing_only: bool


def read_modules(package: Path = PACKAGE) -> dict[str, ast.Module]:
    """The tree of every module below `package`, by dotted name."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = (package.name, *path.relative_to(package).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return modules


def is_package(name: str, modules: Mapping[str, ast.Module]) -> bool:
    """Whether `name` is a folder: something lies in it."""
    return any(other.startswith(f"{name}.") for other in modules)


def imports_of(name: str, modules: Mapping[str, ast.Module]) -> Iterator[Import]:
    """Everything `name` imports, also inside functions, with relative imports made absolute."""
    yield from _walk(modules[name], name, modules, typing_only=False)


def _walk(
    node: ast.AST, name: str, modules: Mapping[str, ast.Module], *, typing_only: bool
) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, typing_only)
        elif isinstance(child, ast.ImportFrom):
            base = _absolute(child, name, modules)
            for alias in child.names:
                inner = f"{base}.{alias.name}"
                yield Import(inner if inner in modules else base, child.lineno, typing_only)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                block = ast.Module(body=[statement], type_ignores=[])
                yield from _walk(block, name, modules, typing_only=True)
            for statement in child.orelse:
                block = ast.Module(body=[statement], type_ignores=[])
                yield from _walk(block, name, modules, typing_only=typing_only)
        else:
            yield from _walk(child, name, modules, typing_only=typing_only)


def _absolute(node: ast.ImportFrom, name: str, modules: Mapping[str, ast.Module]) -> str:
    if not node.level:
        return node.module or ""
    folder = name.split(".") if is_package(name, modules) else name.split(".")[:-1]
    kept = folder[: len(folder) - node.level + 1]
    return ".".join([*kept, *([node.module] if node.module else [])])
