"""The limits that docs/security.md tells are those of the code."""

import importlib
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
ROW = re.compile(r"^\| [^|]+ \| `([\w/]+)\.py` `([A-Z_]+)` \| (\d+) \|", re.MULTILINE)


def test_limits_of_the_page_are_those_of_the_code() -> None:
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert len(rows) > 10
    for module, name, value in rows:
        told = getattr(importlib.import_module(module.replace("/", ".")), name)
        assert (name, told) == (name, int(value))
