"""Logging of `leveret serve`: one line an event, on stderr, as text or JSON.

Only `leveret serve` calls `configure_logging`: a broker embedded in another program leaves logging
to that program. Everyone logs through `logging.getLogger("leveret.connection")` and the like, and
names the client with `extra={"peer": address}` so that repeats are counted for each client.

What a client chose (names, reply texts, client properties) is hostile until shown otherwise.
`printable` makes one such text safe to quote; the formatters escape the whole line once more, so
that a forgotten call cannot forge a line or move a terminal's cursor.
"""

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, TextIO

# The longest AMQP name (a short string) has 255 bytes: longer texts are cut, names never are.
NAME_LENGTH_MAX = 255
# What an attacker with many addresses can make us remember: about 5 MB.
REPEATS_MAX = 10_000
# A hundred workers of one machine may start at once and each be named; a flood costs ten lines a
# second.
REPEATS_SHOWN = 100
REPEAT_INTERVAL_S = 10.0
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@]*):[^\s/@]+@")
_ATTRIBUTE = "leveret_repeated"


def printable(text: str | bytes, limit: int = NAME_LENGTH_MAX) -> str:
    r"""A name from outside, safe and unambiguous in a log line.

    Whatever str.isprintable calls not printable (control characters, line ends, terminal escapes,
    direction marks, lone surrogates) and the backslash itself is shown as an escape: `\n`, `\x1b`,
    `\u202e`. At most `limit` characters of the text are shown, then `…` and its full length.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    shown = escape(text[:limit].replace("\\", "\\\\"))
    return shown if len(text) <= limit else f"{shown}… ({len(text)} characters)"


def escape(text: str) -> str:
    """`text` with each character that is not printable as its Python escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _line(text: str) -> str:
    """One safe line: escaped, and without the password of a URL."""
    return _URL_PASSWORD.sub(r"\1:***@", escape(text))


def _time(record: logging.LogRecord) -> str:
    """UTC, ISO 8601 with milliseconds."""
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """`TIME LEVEL LOGGER: MESSAGE`; the lines of a traceback follow, each behind a bar.

    No text of a client can start a line, so a line that starts with a time is one of ours.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, and one more for each line of a traceback."""
        message = _line(record.getMessage())
        first = f"{_time(record)} {record.levelname.lower():7} {record.name}: {message}"
        if record.exc_info is None:
            return first
        trace = self.formatException(record.exc_info).split("\n")
        return "\n".join([first, *(f"  | {_line(line)}" for line in trace)])


class JSONFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and peer and exception if there are."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        fields = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _line(record.getMessage()),
        }
        if (peer := _peer(record)) != "":
            fields["peer"] = _line(peer)
        if record.exc_info is not None:
            trace = self.formatException(record.exc_info).split("\n")
            fields["exception"] = "\n".join(_line(line) for line in trace)
        return json.dumps(fields, ensure_ascii=False)


def _peer(record: logging.LogRecord) -> str:
    """The client's address, without the port: a client that reconnects stays the same client."""
    peer = getattr(record, "peer", "")
    return str(peer[0]) if isinstance(peer, tuple) else str(peer)


class _Repeats:
    """One kind of line from one peer: how many came since `since`, and the last of them."""

    __slots__ = ("count", "last", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.count = 0
        self.last: logging.LogRecord | None = None


class RepeatFilter(logging.Filter):
    """Lets `shown` lines of one (logger, message template, peer) pass in each interval.

    Those beyond are counted, and one line `… repeated N times` says so: when the first line of any
    kind comes after the interval, or at `flush`. Errors are no exception: clients cause most.
    `clock` is monotonic, in seconds; `emit` takes the lines of the filter's own.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        emit: Callable[[logging.LogRecord], object],
        *,
        shown: int = REPEATS_SHOWN,
        interval_s: float = REPEAT_INTERVAL_S,
        repeats_max: int = REPEATS_MAX,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._emit = emit
        self._shown = shown
        self._interval_s = interval_s
        self._repeats_max = repeats_max
        # In the order of `since`: a new interval always starts at the end.
        self._repeats: dict[tuple[str, str, str], _Repeats] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record passes; logging calls it."""
        if hasattr(record, _ATTRIBUTE):
            return True
        now = self._clock()
        key = (record.name, str(record.msg), _peer(record))
        with self._lock:
            ended = self._take_ended(now)
            repeats = self._repeats.setdefault(key, _Repeats(now))
            repeats.count += 1
            passes = repeats.count <= self._shown
            if not passes:
                repeats.last = record
        self._report(ended, now)
        return passes

    def flush(self) -> None:
        """Reports what was held back, whether its interval has ended or not."""
        with self._lock:
            ended = list(self._repeats.values())
            self._repeats.clear()
        self._report(ended, self._clock())

    def _take_ended(self, now: float) -> list[_Repeats]:
        ended = []
        while self._repeats:
            key, oldest = next(iter(self._repeats.items()))
            if oldest.since + self._interval_s > now and len(self._repeats) < self._repeats_max:
                break
            ended.append(self._repeats.pop(key))
        return ended

    def _report(self, ended: list[_Repeats], now: float) -> None:
        for repeats in ended:
            if repeats.last is None:
                continue
            last, hidden = repeats.last, repeats.count - self._shown
            seconds = now - repeats.since
            message = f"{last.getMessage()} … repeated {hidden} times in {seconds:.0f} s"
            record = logging.LogRecord(
                last.name, last.levelno, last.pathname, last.lineno, message, None, None
            )
            record.__dict__.update(peer=getattr(last, "peer", ""), **{_ATTRIBUTE: hidden})
            self._emit(record)


class _Handler(logging.StreamHandler[TextIO]):
    """Tells at the end what the filter still holds back."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        super().__init__(stream)
        self._repeats = RepeatFilter(clock, self.handle)
        self.addFilter(self._repeats)

    def close(self) -> None:
        self._repeats.flush()
        super().close()


def configure_logging(
    level: Literal["debug", "info", "warning", "error"],
    form: Literal["text", "json"],
    *,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Sends the log of the whole process to `stream` (default: stderr).

    `level` is for the loggers under `leveret`; libraries are heard from warnings on.
    """
    handler = _Handler(sys.stderr if stream is None else stream, clock)
    handler.setFormatter(JSONFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("leveret").setLevel(level.upper())
    logging.captureWarnings(True)
