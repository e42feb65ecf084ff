"""What the documents show is run: Python blocks whole, shell lines when they end by themselves.

Checked are README.md, CONTRIBUTING.md and every `docs/*.md`. A block right after
`<!-- no-test: reason -->` is compiled (Python) or left alone (shell), and the reason is required. A
block right after `<!-- file: path -->` is that file, word for word. Two blocks after
`<!-- side: ... -->` are the two sides of one pipe: both are run at a time, and a file must get
through. A shell block after `<!-- session -->` is typed into one shell, and must show what comes of
it; keys and times may differ.
"""

from __future__ import annotations

import ast
import os
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.discovery.fakes import free_udp_port

ROOT = Path(__file__).parent.parent
FENCE = re.compile(
    r"(?:<!--\s*no-test:(?P<reason>[^>]*)-->\s*\n+)?"
    r"(?:<!--\s*file:(?P<file>[^>]*)-->\s*\n+)?"
    r"(?:<!--\s*side:(?P<side>[^>]*)-->\s*\n+)?"
    r"(?P<session><!--\s*session\s*-->\s*\n+)?"
    r"^```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^```\s*$",
    re.MULTILINE | re.DOTALL,
)
BLOCK_TIMEOUT = 40
LOUD = ("Traceback", "never awaited", "ResourceWarning", "Task was destroyed", "never retrieved")
ENDS_BY_ITSELF = {"hello", "id"}
GROUPS = {"log"}
"""Commands that have commands."""
RUNNER = """
import ast, asyncio, inspect, pathlib, sys
text = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")
code = compile(text, sys.argv[2], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
names = {"__name__": "__main__"}
sys.argv = sys.argv[2:]
result = eval(code, names)
if inspect.iscoroutine(result):
    asyncio.run(result)
"""


@dataclass(frozen=True)
class Block:
    """One fenced block; `reason` says why it is not run, `file` which file it shows."""

    source: str
    language: str
    text: str
    reason: str | None
    file: str | None = None
    side: str | None = None
    session: bool = False

    def __str__(self) -> str:
        return self.source


def blocks_of(name: str, document: str) -> Iterator[Block]:
    """The fenced blocks of a document, in order."""
    for found in FENCE.finditer(document):
        line = document.count("\n", 0, found.start("text")) + 1
        reason, file, side = (
            found[part] and found[part].strip() for part in ("reason", "file", "side")
        )
        place, session = f"{name}:{line}", found["session"] is not None
        yield Block(place, found["language"], found["text"], reason, file, side, session)


def documents() -> Iterator[tuple[str, str]]:
    """The documents that promise to work, by name."""
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("**/*.md")),
    ):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def commands_of(block: Block) -> Iterator[list[str]]:
    """The `$ ...` lines of a shell block: each `covey` or `make` call in them, as arguments."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if not line.startswith("$ "):
            continue
        lexer = shlex.shlex(line[2:], posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";|&<>()"):
                if command and command[0] in {"covey", "make"}:
                    yield command
                command = []
            else:
                command.append(word)


BLOCKS = [block for name, text in documents() for block in blocks_of(name, text)]
PYTHON = [block for block in BLOCKS if block.language in {"python", "py"}]
SHELL = [block for block in BLOCKS if block.language in {"console", "sh", "shell", "bash"}]
COMMANDS = [
    pytest.param(command, id=f"{block}-{'_'.join(command)}")
    for block in SHELL
    if block.reason is None and block.side is None and not block.session
    for command in commands_of(block)
]


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in an empty folder that is also its home, so that no real key is touched."""
    environment = {
        **os.environ,
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_STATE_HOME": str(folder / "state"),
        "PYTHONWARNINGS": "default",
        "COLUMNS": "200",
    }
    return subprocess.run(
        arguments,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BLOCK_TIMEOUT,
        check=False,
    )


def covey(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line of this checkout."""
    main = "import sys; from covey.cli import main; sys.argv[0] = 'covey'; main()"
    return run([sys.executable, "-c", main, *arguments], folder)


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_block_runs(block: Block, tmp_path: Path) -> None:
    if block.reason is not None:
        assert block.reason, f"{block}: say why the block is not run"
        compile(block.text, block.source, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return
    script = tmp_path / "block.py"
    script.write_text(block.text, encoding="utf-8")
    done = run([sys.executable, "-c", RUNNER, str(script), block.source], tmp_path)
    assert done.returncode == 0, f"{block}:\n{done.stdout}\n{done.stderr}"
    assert not [word for word in LOUD if word in done.stderr], f"{block}:\n{done.stderr}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.file], ids=str)
def test_a_shown_file_is_the_file(block: Block) -> None:
    assert block.file is not None
    assert block.text == (ROOT / block.file).read_text(encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS)
def test_shell_line_works(command: list[str], tmp_path: Path) -> None:
    """Commands that end by themselves are run; of the others, command and options must exist."""
    program, *arguments = command
    if program == "make":
        targets = [word for word in arguments if "=" not in word]
        done = run(["make", "-C", str(ROOT), "-n", *targets], tmp_path)
        assert done.returncode == 0, done.stderr
        return
    if not arguments or arguments[0] in ENDS_BY_ITSELF or "--help" in arguments:
        done = covey(arguments or ["--help"], tmp_path)
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        return
    options = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    depth = 2 if arguments[0] in GROUPS else 1
    names = [word for word in arguments[:depth] if not word.startswith("-")]
    done = covey([*names, "--help"], tmp_path)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    for option in options:
        assert option in done.stdout, f"{command}: no option {option} in its help"


def as_shown(text: str) -> str:
    """Without what is never the same twice: keys, folders, and times, which also end a padding."""
    text = re.sub(r"/\S+/covey/store\b", "STORE", text)
    text = re.sub(r"\b[0-9a-f]{64}\b", "KEY", text)
    return re.sub(r" +\d+\.\d{3} s\b", "TIME", text).strip()


@pytest.mark.parametrize("block", [block for block in SHELL if block.session], ids=str)
def test_a_session_shows_what_comes_of_it(block: Block, tmp_path: Path) -> None:
    command = f'covey() {{ {shlex.quote(sys.executable)} -m covey.cli "$@"; }}\n'
    shell = ["exec 2>&1", command]
    for line in block.text.splitlines():
        if line.startswith("$ "):
            shell += [f"printf '%s\\n' {shlex.quote(line)}", line[2:]]
    done = run(["/bin/sh", "-c", "\n".join(shell)], tmp_path)
    assert as_shown(done.stdout) == as_shown(block.text)


SIDES = [block for block in SHELL if block.side]
TOPIC = re.compile(r"[a-z0-9]{4}(-[a-z0-9]{4}){3}")


@contextmanager
def one_side(line: str, folder: Path, ways: str) -> Iterator[subprocess.Popen[str]]:
    """Run a shell line `$ covey pipe ...` in `folder`, on loopback; killed at the end."""
    assert line.startswith("$ covey pipe")
    folder.mkdir()
    python = f"exec {shlex.quote(sys.executable)} -m covey.cli pipe {ways}"
    shell = line.replace("$ covey pipe", python, 1)
    with subprocess.Popen(
        ["/bin/sh", "-c", shell], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def topic_told_by(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a side that makes a topic says until then, and the topic."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if found := TOPIC.search(line):
            return said, found[0]
    raise AssertionError(f"no topic was told: {said}")


def test_the_two_sides_move_the_file(tmp_path: Path) -> None:
    """As shown: the first side makes the topic that the second is told."""
    first, second = SIDES
    shown, *told = first.text.splitlines()
    here, there = tmp_path / "here", tmp_path / "there"
    ways = f"--interface 127.0.0.1 --multicast-port {free_udp_port()} --timeout 30"
    photo = random.Random(6).randbytes(300_000)
    (tmp_path / "holiday.jpg").write_bytes(photo)
    with one_side(shown.replace("holiday.jpg", "../holiday.jpg"), here, ways) as giver:
        said, topic = topic_told_by(giver)
        assert TOPIC.sub(topic, "\n".join(told)).strip() == said.strip()
        (line,) = second.text.splitlines()
        assert TOPIC.search(line)
        with one_side(TOPIC.sub(topic, line), there, ways) as taker:
            for process in (taker, giver):
                _, errors = process.communicate(timeout=BLOCK_TIMEOUT)
                assert process.returncode == 0, errors
    assert (there / "holiday.jpg").read_bytes() == photo


SAMPLE = """
```python
one = 1
```
<!-- no-test: needs two machines -->
```python
await two()
```

```console
$ covey hello --json   # comment
hello
$ tar c . | covey pipe x > /dev/null && make demo
```
"""


def test_blocks_are_found_with_language_reason_and_line() -> None:
    found = list(blocks_of("doc.md", SAMPLE))
    assert [(b.source, b.language, b.reason) for b in found] == [
        ("doc.md:3", "python", None),
        ("doc.md:7", "python", "needs two machines"),
        ("doc.md:11", "console", None),
    ]
    assert found[0].text == "one = 1\n"


def test_a_block_that_shows_a_file_names_it() -> None:
    (block,) = blocks_of("doc.md", "<!-- file: examples/why.py -->\n```python\n1\n```\n")
    assert (block.file, block.reason, block.text) == ("examples/why.py", None, "1\n")


LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#]*)(?:#(?P<anchor>[^)]*))?\)")


def anchors_of(document: str) -> set[str]:
    """The anchors of the headings, as the usual viewers make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", dict(documents()))
def test_links_lead_somewhere(name: str) -> None:
    here = ROOT / name
    for link in LINK.finditer(FENCE.sub("", here.read_text(encoding="utf-8"))):
        target = here.parent / link["path"] if link["path"] else here
        assert target.exists(), f"{name}: {link[0]}"
        if link["anchor"]:
            assert link["anchor"] in anchors_of(target.read_text(encoding="utf-8")), link[0]


def test_commands_are_taken_out_of_pipelines() -> None:
    shell = list(blocks_of("doc.md", SAMPLE))[2]
    assert list(commands_of(shell)) == [
        ["covey", "hello", "--json"],
        ["covey", "pipe", "x"],
        ["make", "demo"],
    ]


def test_a_failing_block_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        test_python_block_runs(Block("doc.md:1", "python", "1 / 0\n", None), tmp_path)


def test_a_block_may_await_at_its_top(tmp_path: Path) -> None:
    text = "import asyncio\nawait asyncio.sleep(0)\n"
    test_python_block_runs(Block("doc.md:1", "python", text, None), tmp_path)
