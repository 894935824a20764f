"""House rules that no linter knows: sizes, names, docstrings, and what may not be left behind."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 100

PRODUCT = ("broker", "exchanges")
CODE = (*PRODUCT, "conformance", "docs", "examples", "tests")
# Words that say nothing about what a thing is.
EMPTY_WORDS = {
    "helper", "helpers", "manager", "managers", "service", "services", "util", "utils",
}  # fmt: skip
SKIPS = {"importorskip", "skip", "skipIf", "skipUnless", "skipif", "xfail"}
# In two halves, so that this file passes its own tests.
MARKS = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.~])/(?:wo" + r"rk|ro" + r"ot|ho" + r"me/(?!alice\b)\w+)/")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_files(tops: tuple[str, ...] = CODE) -> list[str]:
    """The Python files below the folders, as paths from the project's root."""
    files = [path for top in tops for path in sorted((ROOT / top).rglob("*.py"))]
    return [path.relative_to(ROOT).as_posix() for path in files]


def text_files() -> list[str]:
    """All text files that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file() and name != "LICENSE"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def sizes(source: str) -> Iterator[str]:
    """What is longer than the rules allow."""
    lines = source.splitlines()
    if len(lines) > FILE_LINES_MAX:
        yield f"{len(lines)} lines in the file"
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS_MAX:
            yield f"line {number}: {len(line)} columns"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield f"line {node.lineno}: {node.name} has {length} lines"


def words(name: str) -> list[str]:
    """`QueueManager`, `queue_manager`: queue, manager."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def names(path: str, source: str) -> Iterator[str]:
    """The names that say nothing."""
    for part in Path(path).with_suffix("").parts:
        if EMPTY_WORDS & set(words(part)):
            yield f"file {part}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function | ast.ClassDef) and (
            EMPTY_WORDS & set(words(node.name))
            or node.name == "process"
            or node.name.startswith("do_")
        ):
            yield f"line {node.lineno}: {node.name}"


def undocumented(source: str) -> Iterator[str]:
    """Public modules, classes and functions without a docstring."""
    tree = ast.parse(source)
    if not ast.get_docstring(tree):
        yield "the module"
    pending: list[ast.Module | ast.ClassDef] = [tree]
    while pending:
        for node in pending.pop().body:
            if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
                continue
            # A setter and an overload are told where the property or function is.
            if any(
                isinstance(mark, ast.Attribute | ast.Name)
                and ast.unparse(mark).endswith((".setter", "overload", "override"))
                for mark in node.decorator_list
            ):
                continue
            if not ast.get_docstring(node):
                yield f"line {node.lineno}: {node.name}"
            if isinstance(node, ast.ClassDef):
                pending.append(node)


def skips(source: str) -> Iterator[str]:
    """Where a test may be left out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in SKIPS:
            base = ast.unparse(node.value)
            if base in {"pytest", "pytest.mark", "unittest"}:
                yield f"line {node.lineno}: {base}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module in {"pytest", "unittest"}:
            yield from (f"line {node.lineno}: {n.name}" for n in node.names if n.name in SKIPS)


@pytest.mark.parametrize("path", python_files())
def test_file_keeps_to_the_sizes(path: str) -> None:
    assert list(sizes(read(path))) == []


@pytest.mark.parametrize("path", python_files(PRODUCT))
def test_names_say_what_a_thing_is(path: str) -> None:
    assert list(names(path, read(path))) == []


@pytest.mark.parametrize("path", python_files(PRODUCT))
def test_public_names_have_docstrings(path: str) -> None:
    assert list(undocumented(read(path))) == []


@pytest.mark.parametrize("path", python_files(("tests", "conformance")))
def test_no_test_may_be_left_out(path: str) -> None:
    assert list(skips(read(path))) == []


@pytest.mark.parametrize("path", text_files())
def test_nothing_is_left_behind(path: str) -> None:
    text = read(path)
    assert MARKS.findall(text) == []
    assert MACHINE_PATHS.findall(text) == []


def test_rules_see_the_product() -> None:
    assert "broker/cli.py" in python_files(PRODUCT)
    assert "exchanges/topic.py" in python_files()
    assert "Makefile" in text_files()


@pytest.mark.parametrize(
    "source",
    [
        "x = 1\n" * (FILE_LINES_MAX + 1),
        f"x = {'1' * COLUMNS_MAX}",
        "def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX,
        "class A:\n  async def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX,
    ],
)
def test_size_beyond_the_rules_is_found(source: str) -> None:
    assert len(list(sizes(source))) == 1


def test_size_at_the_limit_is_allowed() -> None:
    function = "def f():\n" + "    x = 1\n" * (FUNCTION_LINES_MAX - 1)
    assert list(sizes(function + "x = 1\n" * (FILE_LINES_MAX - FUNCTION_LINES_MAX))) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("broker/utils.py", ""),
        ("broker/a.py", "class QueueManager: pass"),
        ("broker/a.py", "def parse_helper(): pass"),
        ("broker/a.py", "class AMQPService: pass"),
        ("broker/a.py", "def process(): pass"),
        ("broker/a.py", "class A:\n  def do_it(self): pass"),
    ],
)
def test_name_that_says_nothing_is_found(path: str, source: str) -> None:
    assert len(list(names(path, source))) == 1


def test_name_that_only_contains_such_a_word_is_allowed() -> None:
    assert list(names("broker/utility.py", "class Processed: pass\ndef done(): pass")) == []


@pytest.mark.parametrize(
    "source",
    [
        "x = 1",
        '"""Doc."""\nclass A: pass',
        '"""Doc."""\ndef f(): pass',
        '"""Doc."""\nclass A:\n  """Doc."""\n  def f(self): pass',
        '"""Doc."""\nclass A:\n  """Doc."""\n  class B:\n    x = 1',
    ],
)
def test_missing_docstring_is_found(source: str) -> None:
    assert len(list(undocumented(source))) == 1


def test_private_names_and_setters_need_no_docstring() -> None:
    source = '"""Doc."""\nclass _A:\n  def f(self): pass\ndef _f(): pass\n'
    setter = (
        'class B:\n  """Doc."""\n  @x.setter\n  def x(self, y): pass\n  def __len__(self): pass'
    )
    assert list(undocumented(source + setter)) == []


@pytest.mark.parametrize(
    "source",
    [
        "@pytest.mark.skip\ndef test(): pass",
        "@pytest.mark.skipif(True, reason='')\ndef test(): pass",
        "x = pytest.param(1, marks=pytest.mark.xfail)",
        "pytest.skip('')",
        "from pytest import importorskip",
        "@unittest.skipIf(True, '')\ndef test(): pass",
    ],
)
def test_skip_is_found(source: str) -> None:
    assert len(list(skips(source))) == 1


@pytest.mark.parametrize("text", ["# TO" + "DO later", "FIX" + "ME", "(XX" + "X)"])
def test_mark_is_found(text: str) -> None:
    assert MARKS.search(text)


@pytest.mark.parametrize("text", ["/wo" + "rk/main", "'/ro" + "ot/.cache/'", "=/ho" + "me/bob/x"])
def test_path_of_one_machine_is_found(text: str) -> None:
    assert MACHINE_PATHS.search(text)
    assert not MACHINE_PATHS.search("docs/work/x ~/wo" + "rk/ https://example.com/home")
