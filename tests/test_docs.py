"""The documentation says what the code does: pages, names, paths, and the program in README.md."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from broker import cli
from broker.core.arguments import QUEUE_ARGUMENTS
from broker.server.settings import Settings
from tests.conftest import RunningBroker, environment

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
README_URL = "amqp://guest:guest@127.0.0.1:5672/"
README_LINES_MAX = 60


def generate() -> ModuleType:
    """docs/generate.py, which is a program and not in a package."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stale(folder: Path) -> list[str]:
    """The generated pages that differ from what the code says."""
    pages = generate().PAGES
    assert pages
    return [
        name
        for name, page in pages.items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != page()
    ]


def absent(names: Iterable[str], text: str) -> list[str]:
    """The names that do not occur in the text as whole words."""
    return [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?!\w)", text)]


def all_docs() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def paths_named(text: str) -> list[str]:
    """Paths in backticks: those with a slash, and files by their ending."""
    quoted = re.findall(r"`([\w./*-]+)`", text)
    return [
        name for name in quoted if "/" in name.strip("/") or re.search(r"\.(py|md|toml)$", name)
    ]


def dead_links(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    relative = [target for target in targets if not re.match(r"[a-z]+:", target)]
    return [target for target in relative if not (page.parent / target).exists()]


def example(text: str) -> str:
    """The Python program of a page; there is exactly one."""
    (program,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return str(program)


def test_generated_pages_are_current() -> None:
    assert stale(DOCS) == [], "run `make docs`"


def test_page_that_is_not_current_is_found(tmp_path: Path) -> None:
    module = generate()
    for name, page in module.PAGES.items():
        (tmp_path / name).write_text(page() + "\n", encoding="utf-8")
    assert stale(tmp_path) == list(module.PAGES)


def test_every_setting_is_documented() -> None:
    assert absent(Settings.model_fields, (DOCS / "configuration.md").read_text()) == []


def test_every_queue_argument_is_documented() -> None:
    page = (DOCS / "compatibility.md").read_text(encoding="utf-8")
    assert absent(QUEUE_ARGUMENTS, page) == []


def test_every_metric_of_a_running_broker_is_documented(broker: RunningBroker) -> None:
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    text = httpx.get(f"{broker.http_url}/metrics").text
    names = re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)
    assert len(names) > 40
    assert absent(names, page) == []


def test_every_command_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out.split("Commands:\n")[1]
    commands = re.findall(r"^  (\w[\w-]*)", listed, re.MULTILINE)
    assert {"serve", "version"} <= set(commands)
    assert absent([f"leveret {command}" for command in commands], all_docs()) == []


def test_name_that_is_not_documented_is_found() -> None:
    assert absent(["port", "frame_max"], "`http_port` and `frame_maximum`") == ["port", "frame_max"]
    assert absent(["port"], "the `port`.") == []


def test_every_path_named_in_the_architecture_exists() -> None:
    named = paths_named((DOCS / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    assert named
    bases = (ROOT, ROOT / "broker", DOCS)
    assert [
        name for name in named if not any([*base.glob(name.rstrip("/"))] for base in bases)
    ] == []


def test_paths_are_told_from_other_code() -> None:
    text = (
        "`broker/core/`, `exchanges/topic.py`, `pyproject.toml`, `basic.publish`, `x-priority`, `/`"
    )
    assert paths_named(text) == ["broker/core/", "exchanges/topic.py", "pyproject.toml"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](page.md#top) [b](missing.md) [c](https://example.com/x)")
    assert dead_links(page) == ["missing.md"]


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    names = [page.name for page in DOCS.glob("*.md") if page.name != "README.md"]
    assert [name for name in names if f"({name})" not in index] == []


def test_readme_fits_one_screen_and_names_the_two_commands() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= README_LINES_MAX
    assert "\n    make run\n" in text
    assert "\n    make test\n" in text


def test_readme_example_works_when_pasted(broker: RunningBroker) -> None:
    program = example(README.read_text(encoding="utf-8"))
    assert len(program.splitlines()) <= 16
    assert program.count(README_URL) == 1
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace(README_URL, broker.url)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=30,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "Hello, hare!\n", "")
