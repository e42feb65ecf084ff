"""Writes docs/reference.md from the source: what it says is what the docstrings say.

python docs/make_reference.py            write the file
python docs/make_reference.py --check    only say whether it is up to date

Public are the names that the packages export. Members below a comment of `INTERNAL` are for other
parts of covey, and left out.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "reference.md"
PACKAGES = (
    *("covey", "covey.flock", "covey.networker", "covey.discovery", "covey.conn", "covey.net"),
    "covey.wire",
)
INTERNAL = {
    *("What the shell calls", "What the flock calls", "Told by the channel", "Channels call these"),
    *("The pipe calls these", "For messages and the muxer", "What asyncio calls", "Inside"),
    *("The machine calls these", "For the wakeup"),
}
MADE_HERE = {
    *("covey.address", "covey.net.connection", "covey.flock.topic", "covey.net.mux_channel"),
    *("covey.net.mux_message", "covey.conn.sessions", "covey.discovery.membership"),
    *("covey.networker.group", "covey.networker.stream"),
    *("covey.wire.wakeup_session", "covey.wire.wakeup_topic"),
}
"""Modules whose classes users get from covey and do not make."""
SKIPPED = {"covey.net.stream_shell", "covey.errors"}
MODULES = (
    *("covey.wakeup", "covey.wire.wakeup_stats", "covey.metrics"),
    *("covey.wire.structs", "covey.legacy_address"),
    *("covey.wire.dns_messages", "covey.wire.dns_discovery", "covey.wire.dns_answers"),
)
"""Public by themselves: `from MODULE import …`."""
HEADINGS: Final = {
    "covey": ("The face", "What most programs need: `from covey import …`."),
    "covey.flock": ("The flock", "Everybody who joined a topic: `from covey.flock import …`."),
    "covey.networker": (
        "Stores on a network",
        "Peers of logs, groups of logs, messages beside them: `from covey.networker import …`.",
    ),
    "covey.discovery": ("Discovery", "Who is there: `from covey.discovery import …`."),
    "covey.conn": ("Staging and hub", "Candidates, connections: `from covey.conn import …`."),
    "covey.net": ("Connections", "Sockets, messages, channels: `from covey.net import …`."),
    "covey.wire": ("Protocols", "Bytes in, events and bytes out: `from covey.wire import …`."),
}
PREFACE = """# Reference

Made from the source by `docs/make_reference.py`: change the docstrings, not this file. How things
are used stands in the [tutorial](tutorial.md) and the [how-to](how-to.md), the command line in
[commands](commands.md). Seconds are `float`, sizes are bytes, times in public data are milliseconds
since 1970. After `close` every method raises `ClosedError`.

[The face](#the-face) · [The flock](#the-flock) · [Stores on a network](#stores-on-a-network) ·
[Discovery](#discovery) · [Staging and hub](#staging-and-hub) · [Connections](#connections) ·
[Protocols](#protocols) ·
[Codecs](#codecs) · [Wakeup](#coveywakeup) · [Metrics](#coveymetrics) ·
[Structs](#coveywirestructs) · [Older addresses](#coveylegacy_address) ·
DNS [messages](#coveywiredns_messages), [discovery](#coveywiredns_discovery) and
[answers](#coveywiredns_answers) · [Errors](#errors) · [Limits](#limits)
"""
TABLES: Final = {
    "Events": "| class | `type` | fields | when |\n|---|---|---|---|",
    "Functions": "| call | what it does |\n|---|---|",
    "Types": "| name | is | |\n|---|---|---|",
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def parse(module: str) -> tuple[ast.Module, list[str]]:
    """The tree and the lines of a module; of a package, its `__init__`."""
    path = ROOT / "src" / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = path.read_text(encoding="utf-8")
    return ast.parse(text), text.splitlines()


def exports(package: str) -> dict[str, str]:
    """Exported names and the modules they live in."""
    for node in parse(package)[0].body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "_HOMES" and node.value:
            homes: dict[str, tuple[str, ...]] = ast.literal_eval(node.value)
            return {name: home for home, names in homes.items() for name in names}
    raise SystemExit(f"{package} exports nothing")


def document(node: ast.ClassDef | Function | ast.Module) -> str:
    """A docstring as paragraphs without line breaks."""
    text = ast.get_docstring(node) or ""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def told_below(after: ast.stmt | None) -> str:
    """The text that stands below an assignment and says what it is."""
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
        return str(after.value.value)
    return ""


def cell(text: str) -> str:
    """Text for a table: bars would end the cell."""
    return " ".join(text.split()).replace("|", "\\|")


def parameters(node: Function) -> Iterator[str]:
    """The parameters of a function as one writes them, without `self`."""
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    missing = len(positional) - len(given.defaults)
    defaults: list[ast.expr | None] = [*([None] * missing), *given.defaults]
    pairs = [*zip(positional, defaults, strict=True)]
    yield from (_parameter(*pair) for pair in pairs if pair[0].arg not in {"self", "cls"})
    if given.vararg is not None:
        yield f"*{_parameter(given.vararg, None)}"
    elif given.kwonlyargs:
        yield "*"
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        yield _parameter(argument, default)
    if given.kwarg is not None:
        yield f"**{_parameter(given.kwarg, None)}"


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    kind = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    return f"{argument.arg}{kind}" + (f" = {ast.unparse(default)}" if default else "")


def signature(node: Function) -> str:
    """A call as one writes it: parameters, types, what comes back."""
    returns = ast.unparse(node.returns) if node.returns else "None"
    given = "" if returns == "None" else f" → {returns}"
    wait = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{wait}{node.name}({', '.join(parameters(node))}){given}"


def decorated(node: Function) -> set[str]:
    """The names of the decorators."""
    return {ast.unparse(decorator) for decorator in node.decorator_list}


def sections_of(node: ast.ClassDef, lines: list[str]) -> Iterator[tuple[ast.stmt, str]]:
    """The statements of a class, each with the last comment that stands alone before it."""
    section = ""
    at = node.lineno
    for statement in node.body:
        for line in lines[at : statement.lineno - 1]:
            if found := re.fullmatch(r" {4}# (.*)", line):
                section = found[1]
        at = max(at, statement.end_lineno or at)
        yield statement, section


def members(node: ast.ClassDef, lines: list[str]) -> list[tuple[str, str]]:
    """Code and description of what a user of the class may touch."""
    rows = []
    for statement, section in sections_of(node, lines):
        if section in INTERNAL or not isinstance(statement, Function):
            continue
        marks = decorated(statement)
        if statement.name.startswith("_") or marks & {"overload"} or "setter" in str(marks):
            continue
        if "property" in marks:
            code = statement.name
        elif "classmethod" in marks:
            code = f"{node.name}.{signature(statement)}"
        else:
            code = signature(statement)
        rows.append((code, document(statement)))
    return rows


def constants(node: ast.ClassDef, lines: list[str]) -> list[tuple[str, str, str, str]]:
    """Assigned names of a class: name, type, value, and the docstring below it."""
    del lines
    rows: list[tuple[str, str, str, str]] = []
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        text = told_below(after)
        if isinstance(statement, ast.AnnAssign):
            name, kind = ast.unparse(statement.target), ast.unparse(statement.annotation)
            value = ast.unparse(statement.value) if statement.value else ""
        elif isinstance(statement, ast.Assign):
            name, kind, value = ast.unparse(statement.targets[0]), "", ast.unparse(statement.value)
        else:
            continue
        if not name.startswith("_"):
            rows.append((name, kind, value, text))
    return rows


def bases(node: ast.ClassDef) -> list[str]:
    """What a class is made from, without what says nothing to a user."""
    names = [ast.unparse(base) for base in node.bases]
    return [name for name in names if not name.startswith(("_", "Generic"))]


def is_event(node: ast.ClassDef) -> bool:
    """Whether a class is a dataclass with the name of an event as its `type`."""
    return any(name == "type" and "Literal" in kind for name, kind, _, _ in constants(node, []))


def attributes_of(init: Function) -> Iterator[str]:
    """The public attributes that a constructor sets, in order."""
    found: dict[str, None] = {}
    for node in ast.walk(init):
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        for target in targets:
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                found[target.attr] = None
    yield from (name for name in found if not name.startswith("_"))


def class_entry(name: str, module: str, node: ast.ClassDef, lines: list[str]) -> Iterator[str]:
    """One class: contract, construction, fields, members."""
    made_of = f" ({', '.join(f'`{base}`' for base in bases(node))})" if bases(node) else ""
    yield f"### `{name}`\n\n`{module}`{made_of}\n\n{document(node)}\n"
    plain = "Enum" in str(bases(node))
    for method in node.body:
        if isinstance(method, Function) and method.name == "__init__":
            if module not in MADE_HERE:
                inner = "".join(f"    {one},\n" for one in parameters(method))
                yield f"```text\n{name}(\n{inner})\n```\n"
            if attributes := list(attributes_of(method)):
                yield f"Attributes: {', '.join(f'`{one}`' for one in attributes)}.\n"
    dataclass = any("dataclass" in ast.unparse(one) for one in node.decorator_list)
    values = constants(node, lines) if plain or dataclass else []
    if values:
        yield "| value |  |" if plain else "| field | type | default |"
        yield "|---|---|" if plain else "|---|---|---|"
        for field, kind, value, text in values:
            if plain:
                yield f"| `{cell(value)}` | {cell(text)} |"
            else:
                yield f"| `{field}` | `{cell(kind)}` | {f'`{cell(value)}`' if value else ''} |"
        yield ""
    if rows := members(node, lines):
        yield "| member | what it does |\n|---|---|"
        yield from (f"| `{cell(code)}` | {cell(text)} |" for code, text in rows)
        yield ""


def event_row(node: ast.ClassDef) -> str:
    """One line of an event table."""
    fields = constants(node, [])
    told = next(value for name, _, value, _ in fields if name == "type")
    rest = ", ".join(f"`{name}: {cell(kind)}`" for name, kind, _, _ in fields if name != "type")
    return f"| `{node.name}` | `{told}` | {rest} | {cell(document(node))} |"


def package_part(package: str, seen: dict[str, str]) -> Iterator[str]:
    """Everything that a package exports and no package before it told."""
    heading, text = HEADINGS[package]
    yield f"## {heading}\n\n{text}\n"
    tables: dict[str, list[str]] = {title: [] for title in TABLES}
    elsewhere = []
    for name, module in sorted(exports(package).items(), key=lambda item: item[0].lower()):
        if module in SKIPPED or name == "Limits":
            continue
        if name in seen and seen[name] in (module, f"{module} (in a table)"):
            headed = seen[name] == module  # what is told in a table has no place to link to
            elsewhere.append(f"[`{name}`](#{name.lower()})" if headed else f"`{name}`")
            continue
        told = list(named_part(name, module, tables))
        seen.setdefault(name, module if told else f"{module} (in a table)")
        yield from told
    for title, rows in tables.items():
        if rows:
            yield f"### {title} of `{package}`\n\n{TABLES[title]}"
            yield from [*rows, ""]
    if elsewhere:
        yield f"Also here: {', '.join(elsewhere)}.\n"


def named_part(name: str, module: str, tables: dict[str, list[str]]) -> Iterator[str]:
    """The entry of a class; events, functions and types go into the tables."""
    tree, lines = parse(module)
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef) and node.name == name:
            if is_event(node):
                tables["Events"].append(event_row(node))
            else:
                yield from class_entry(name, module, node, lines)
        elif isinstance(node, Function) and node.name == name:
            tables["Functions"].append(f"| `{cell(signature(node))}` | {cell(document(node))} |")
        elif isinstance(node, ast.AnnAssign | ast.Assign) and node.value is not None:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if ast.unparse(target) == name:
                what, told = cell(ast.unparse(node.value)), cell(told_below(after))
                tables["Types"].append(f"| `{name}` | `{what}` | {told} |")


def errors_part() -> Iterator[str]:
    """The tree of errors."""
    yield "## Errors\n\n`from covey import …`. Indented is a kind of what stands above.\n"
    yield "| error | means | fields |\n|---|---|---|"
    classes = [node for node in parse("covey.errors")[0].body if isinstance(node, ast.ClassDef)]

    def below(parent: str, depth: int) -> Iterator[str]:
        for node in classes:
            if ast.unparse(node.bases[0]) != parent:
                continue
            made = [one for one in node.body if isinstance(one, Function)]
            fields = [f"`{one.arg}`" for method in made for one in method.args.kwonlyargs]
            also = [f"also a `{ast.unparse(base)}`" for base in node.bases[1:]]
            what = f"{document(node)}{' (' + also[0] + ')' if also else ''}"
            indent = "&emsp;" * depth
            yield f"| {indent}`{node.name}` | {cell(what)} | {', '.join(fields)} |"
            yield from below(node.name, depth + 1)

    yield from below("Exception", 0)
    yield ""


def limits_part() -> Iterator[str]:
    """The bounds, in the groups of the source."""
    tree, lines = parse("covey.limits")
    node = next(one for one in tree.body if isinstance(one, ast.ClassDef))
    yield f"## Limits\n\n`from covey import Limits`. {document(node)}\n"
    reasons = {name: (value, text) for name, _, value, text in constants(node, lines)}
    last = ""
    for statement, section in sections_of(node, lines):
        if not isinstance(statement, ast.AnnAssign):
            continue
        if section != last:
            yield f"\n**{section}**\n\n| field | default | why |\n|---|---|---|"
            last = section
        value, text = reasons[ast.unparse(statement.target)]
        yield f"| `{ast.unparse(statement.target)}` | `{value}` | {cell(text)} |"
    yield ""


def codecs_part() -> Iterator[str]:
    """The names of the codecs."""
    tree, _ = parse("covey.wire.encoding")
    names = ", ".join(f"`{name}`" for name in listed_names("covey.wire.encoding"))
    yield f"## Codecs\n\n`from covey.wire.encoding import …`. {document(tree)}\n\n{names}.\n"


def listed_names(module: str) -> list[str]:
    """The `__all__` of a module."""
    return next(
        ast.literal_eval(node.value)
        for node in parse(module)[0].body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )


def module_part(module: str, seen: dict[str, str]) -> Iterator[str]:
    """A module whose names no package exports, because they need its own to be understood."""
    yield f"## `{module}`\n\n{document(parse(module)[0])}\n"
    tables: dict[str, list[str]] = {title: [] for title in TABLES}
    for name in listed_names(module):
        if name not in seen:
            yield from named_part(name, module, tables)
    for title, rows in tables.items():
        if rows:
            yield f"### {title} of `{module}`\n\n{TABLES[title]}"
            yield from [*rows, ""]


def reference() -> str:
    """The whole document."""
    seen: dict[str, str] = {}
    parts = [PREFACE]
    for package in PACKAGES:
        parts += package_part(package, seen)
    parts += codecs_part()
    for module in MODULES:
        parts += module_part(module, seen)
    return "\n".join([*parts, *errors_part(), *limits_part()]).rstrip() + "\n"


def main() -> int:
    """Write the file, or with `--check` compare."""
    text = reference()
    if "--check" in sys.argv[1:]:
        if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write("docs/reference.md is out of date: run python docs/make_reference.py\n")
        return 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
