"""The layers: what may import what, and which of them may wait, roll dice or open a file.

    exchanges, errors → wire → storage/log → core → protocol → storage → server, management → cli

A layer imports only what is on its left.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LINE = (
    "exchanges",
    "broker.errors",
    "broker.wire",
    "broker.storage.log",
    "broker.core",
    "broker.protocol",
    "broker.storage",
)
# What each layer may import besides itself and the standard library's harmless part.
ALLOWED = {layer: set(LINE[:place]) for place, layer in enumerate(LINE)}
# The shell and the HTTP side know each other: they run in one event loop.
ALLOWED["broker.server"] = {*LINE, "broker.management", "broker.__version__"}
ALLOWED["broker.management"] = {*LINE, "broker.server", "broker.__version__"}
ALLOWED["broker.cli"] = {*LINE, "broker.server", "broker.management", "broker.__version__"}
ALLOWED["broker.__main__"] = {"broker.cli"}
ALLOWED["broker.__init__"] = set()

INTERFACE = "broker.storage.log"
PURE = LINE[: LINE.index("broker.storage")]
# Time, randomness, durability and the network come in as arguments; so do counters instead of logs.
IMPURE_MODULES = {
    "aiofiles", "anyio", "asyncio", "concurrent", "fcntl", "fileinput", "glob", "io", "logging",
    "mmap", "multiprocessing", "os", "pathlib", "queue", "random", "sched", "secrets", "select",
    "selectors", "shutil", "signal", "socket", "socketserver", "sqlite3", "ssl", "subprocess",
    "tempfile", "threading", "time", "uuid", "uvloop", "warnings", "datetime",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}


def layer_of(module: str) -> str:
    """`broker.core.queue` is in `broker.core`; a name of the package itself is its own layer, and
    so is the interface of storage, which is all that the core may know of it."""
    if module == INTERFACE or module.startswith(f"{INTERFACE}."):
        return INTERFACE
    parts = module.split(".")
    return parts[0] if parts[0] == "exchanges" else ".".join(parts[:2])


def imports(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    """Line and full name of each thing imported: `from broker import wire` is `broker.wire`."""
    package = module.split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: -node.level]) if node.level else ""
            name = ".".join(part for part in (base, node.module) if part)
            yield from ((node.lineno, f"{name}.{alias.name}") for alias in node.names)


def violations(module: str, source: str) -> list[str]:
    """What a module does that its layer may not, one line each."""
    tree = ast.parse(source)
    layer = layer_of(module)
    found = []
    for line, name in imports(tree, module):
        top = name.split(".")[0]
        if top in {"broker", "exchanges"}:
            target = layer_of(name)
            if target not in ALLOWED[layer] | {layer}:
                found.append(f"{module}:{line} imports {name}")
        elif top == "pamqp" and layer != "broker.wire":
            found.append(f"{module}:{line} imports {name}: only broker.wire knows pamqp")
        elif layer in PURE and top in IMPURE_MODULES:
            found.append(f"{module}:{line} imports {name}")
    if layer in PURE:
        found += [
            f"{module}:{node.lineno} calls {node.func.id}()"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in IMPURE_CALLS
        ]
        found += [
            f"{module}:{node.lineno} waits"
            for node in ast.walk(tree)
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
        ]
    return found


def modules() -> dict[str, Path]:
    """Each module of the product and its file."""
    files = [path for top in ("broker", "exchanges") for path in sorted((ROOT / top).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


@pytest.mark.parametrize("module", modules())
def test_module_imports_only_from_the_layers_on_its_left(module: str) -> None:
    assert violations(module, modules()[module].read_text(encoding="utf-8")) == []


def test_every_layer_exists_or_is_still_to_come() -> None:
    layers = {layer_of(module) for module in modules()}
    assert layers - {"exchanges"} <= set(ALLOWED)
    assert {"exchanges", "broker.wire", "broker.core", "broker.protocol"} <= layers


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("exchanges.topic", "from broker.errors import AMQPError"),
        ("exchanges.topic", "import broker"),
        ("broker.errors", "from broker.wire import frames"),
        ("broker.wire.frames", "from broker.core.queue import Queue"),
        ("broker.wire.frames", "from ..core import queue"),
        ("broker.wire.frames", "def f():\n    import broker.core.queue"),
        ("broker.errors", "import broker.core"),
        ("broker.core.queue", "import broker.protocol"),
        ("broker.core.queue", "from broker import protocol"),
        ("broker.core.queue", "from ..protocol.channel import Channel"),
        ("broker.core.queue", "import time"),
        ("broker.core.queue", "from time import monotonic"),
        ("broker.core.queue", "import os.path"),
        ("broker.core.queue", "import logging"),
        ("broker.core.queue", "import pamqp.commands"),
        ("broker.core.__init__", "from ..protocol import channel"),
        ("broker.protocol.methods.basic", "from random import random"),
        ("broker.protocol.methods.basic", "from ...server import settings"),
        ("broker.protocol.methods.basic", "open('x')"),
        ("broker.protocol.methods.basic", "async def f(): pass"),
        ("broker.protocol.methods.basic", "from pamqp import commands"),
        ("broker.protocol.methods.basic", "from broker.server.log import printable"),
        ("broker.storage.log", "from broker.server import serve"),
        ("broker.server.serve", "from broker.cli import app"),
        ("broker.server.serve", "import pamqp"),
        ("broker.management.metrics", "import broker.cli"),
    ],
)
def test_breach_is_found(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("exchanges.topic", "from exchanges.base import Exchange\nfrom .base import Exchange"),
        ("broker.wire.frames", "import exchanges.topic"),
        ("broker.wire.frames", "import struct\nimport pamqp.commands\nimport broker.errors"),
        ("broker.core.queue", "from exchanges import topic\nfrom ..wire import table"),
        ("broker.protocol.methods.basic", "from ...core.queue import Queue\nimport collections"),
        ("broker.protocol.channel", "from . import publish\nfrom .methods import basic"),
        ("broker.server.serve", "import asyncio\nimport time\nfrom broker import __version__"),
        ("broker.cli", "from broker.server.serve import run"),
        ("broker.core.__init__", "from .queue import Queue\nfrom ..wire import table"),
    ],
)
def test_what_is_allowed_is_not_taken_for_a_breach(module: str, source: str) -> None:
    assert violations(module, source) == []
