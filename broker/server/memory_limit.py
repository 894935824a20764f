"""How much memory the setting `memory` allows, on this machine and in this container."""

import os
import re
from pathlib import Path

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)\s*(%|[kmgt]?b|[kmgt]ib?|[kmgt]?)", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
# What RabbitMQ takes where it cannot find out how much memory there is.
_UNKNOWN_MEMORY = 1 << 30


def memory_limit_bytes(memory: str, *, root: Path = Path("/")) -> int:
    """The bytes that the setting `memory` means on this machine.

    A share counts from the smallest of the machine's memory and the limits of this process's
    control groups, version 1 or 2. `root` is where `proc` and `sys` are. Raises ValueError for
    text that is neither a size nor a share.
    """
    amount, unit = _parse(memory)
    if unit is not None:
        return int(amount * unit)
    return int(_available_memory(root) * amount / 100)


def size_bytes(text: str) -> int:
    """The bytes that a size means; 0 without a unit is one. Raises ValueError."""
    if text.strip() == "0":
        return 0
    amount, unit = _parse(text)
    if unit is None:
        raise ValueError("a share, not a size")
    return int(amount * unit)


def _parse(text: str) -> tuple[float, int | None]:
    """`512MB` is (512.0, 1000000), `40%` is (40.0, None).

    As in RabbitMQ, `MB` is a million bytes; `M` and `MiB` are 1,048,576.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("neither a size nor a share")
    amount, unit = float(match[1]), match[2].lower()
    if amount == 0 or (unit == "%" and amount > 100):
        raise ValueError("out of range")
    if unit == "%":
        return amount, None
    decimal = unit.endswith("b") and "i" not in unit
    return amount, (1000 if decimal else 1024) ** _POWERS.get(unit[:1], 0)


def _available_memory(root: Path) -> int:
    limits = [_number(path) for path in _limit_files(root)]
    return min([_machine_memory(root), *(limit for limit in limits if limit is not None)])


def _machine_memory(root: Path) -> int:
    """All memory of the machine in bytes."""
    match = re.search(r"^MemTotal:\s+(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    if match is not None:
        return int(match[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN_MEMORY


def _limit_files(root: Path) -> list[Path]:
    """The limit of each control group from this process's own to the top: each one binds."""
    files = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        own = mount / group.lstrip("/")
        # A container sees its own group as the top, and may see a path that exists outside alone.
        files += [folder / name for folder in (own, *own.parents) if folder.is_relative_to(mount)]
    return files


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
