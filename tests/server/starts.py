"""Starts of a broker with a file of definitions, one after the other."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from broker.core.broker import Broker
from broker.server.server import StartError, make_broker
from broker.server.settings import Settings, variable

START = "definitions of "
BAD = "cannot use the definitions file "


class Starts:
    """Starts brokers in one data directory, with files of definitions."""

    def __init__(
        self, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._folder = folder
        self._caplog = caplog
        # No settings but those of the test.
        for name in Settings.model_fields:
            monkeypatch.delenv(variable(name), raising=False)

    def __call__(self, definitions: object = None, **settings: object) -> Broker:
        """A broker that was started, and stopped, with these definitions, or the file of this
        path."""
        path = definitions if isinstance(definitions, Path) else self._folder / "definitions.json"
        if not isinstance(definitions, Path | None):
            path.write_text(json.dumps(definitions), encoding="utf-8")
        if definitions is not None:
            settings["definitions"] = str(path)
        self._caplog.clear()
        self._caplog.set_level(logging.INFO)

        async def run() -> Broker:
            loop = asyncio.get_running_loop()
            known = Settings.load({"data_dir": str(self._folder / "data"), **settings})
            broker = make_broker(known, loop.call_soon_threadsafe)
            broker.close_journal()
            return broker

        return asyncio.run(run())

    def log(self) -> list[str]:
        """What the last start said of its file, without its name."""
        lines = [record.message for record in self._caplog.records]
        return [line.partition(".json: ")[2] for line in lines if line.startswith(START)]

    def refused(self, definitions: object) -> str:
        """Why no broker starts with these, behind the name of the file."""
        with pytest.raises(StartError) as caught:
            self(definitions)
        text = str(caught.value)
        assert text.splitlines() == [text]
        assert text.startswith(BAD)
        return text.partition(".json: ")[2]


def in_slash(*items: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"vhost": "/", **item} for item in items]


SLASH = [{"name": "/"}]


def with_slash(**definitions: object) -> dict[str, object]:
    return {"vhosts": SLASH, **definitions}
