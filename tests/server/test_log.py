"""Log lines: hostile names cannot forge them, floods cannot fill a disk, no password is in them."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.server.log import (
    JSONFormatter,
    RepeatFilter,
    TextFormatter,
    configure_logging,
    escape,
    printable,
)

HOSTILE = [
    ("a\nb", r"a\nb"),
    ("a\r\nb", r"a\r\nb"),
    ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
    ("\x9b31m", r"\x9b31m"),
    ("\x00\x07\x7f", r"\x00\x07\x7f"),
    ("abc\u202edcba", r"abc\u202edcba"),
    ("\u2066\u2069\u200f\u061c", r"\u2066\u2069\u200f\u061c"),
    ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
    ("line\u2028paragraph\u2029next\x85", r"line\u2028paragraph\u2029next\x85"),
    ("\udcff", r"\udcff"),
    ("\U000e0041", r"\U000e0041"),
    ("queue.überraschung.日本.🐇", "queue.überraschung.日本.🐇"),
    ("", ""),
]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """Puts the logging of the test process back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    leveret = logging.getLogger("leveret")
    leveret_level = leveret.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    leveret.setLevel(leveret_level)
    logging.captureWarnings(False)


def configured(
    form: Literal["text", "json"] = "text", level: Literal["debug", "info"] = "info"
) -> tuple[io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    configure_logging(level, form, stream=stream, clock=clock)
    return stream, clock


def record(message: str, *args: object, peer: object = "192.0.2.1") -> logging.LogRecord:
    made = logging.LogRecord("leveret.connection", logging.INFO, "x.py", 1, message, args, None)
    made.peer = peer
    return made


def repeat_filter(
    shown: int = 2, repeats_max: int = 100
) -> tuple[RepeatFilter, Clock, list[logging.LogRecord]]:
    clock = Clock()
    emitted: list[logging.LogRecord] = []
    repeats = RepeatFilter(
        clock, emitted.append, shown=shown, interval_s=10.0, repeats_max=repeats_max
    )
    return repeats, clock, emitted


@pytest.mark.parametrize(("name", "shown"), HOSTILE)
def test_printable_escapes_what_could_forge_a_line_or_move_a_cursor(name: str, shown: str) -> None:
    assert printable(name) == shown


def test_printable_tells_an_escape_from_a_backslash() -> None:
    assert printable("a\\nb") == r"a\\nb"
    assert printable("a\nb") == r"a\nb"


def test_printable_cuts_long_texts_and_says_their_length() -> None:
    assert printable("x" * 255) == "x" * 255
    assert printable("x" * 256) == "x" * 255 + "… (256 characters)"
    assert printable("\n" * 10, limit=3) == r"\n\n\n" + "… (10 characters)"


def test_printable_takes_bytes_that_are_not_utf8() -> None:
    assert printable(b"caf\xe9\n") == r"caf\udce9\n"
    assert printable("é".encode()) == "é"


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_printable_output_is_printable_and_can_be_read_back(name: str) -> None:
    shown = printable(name, limit=10_000)
    assert shown.isprintable()
    assert shown.encode("ascii", "backslashreplace").decode("unicode_escape") == name


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_escape_is_stable(text: str) -> None:
    once = escape(text)
    assert once.isprintable()
    assert escape(once) == once


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("form", ["text", "json"])
def test_hostile_argument_stays_on_one_line_even_without_printable(
    form: Literal["text", "json"],
) -> None:
    stream, _ = configured(form)
    forged = "x\n2026-01-01T00:00:00.000Z error   leveret: forged \x1b[2J"
    logging.getLogger("leveret.connection").info("queue %s declared", forged)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert "\x1b" not in lines[0]
    assert "forged" in lines[0]


@pytest.mark.usefixtures("logging_restored")
def test_text_line_has_time_level_logger_and_message() -> None:
    stream, _ = configured()
    logging.getLogger("leveret.connection").warning("refused %s", "guest")
    time, rest = stream.getvalue().split(" ", 1)
    assert len(time) == len("2026-01-01T00:00:00.000Z")
    assert time.endswith("Z")
    assert rest == "warning leveret.connection: refused guest\n"


@pytest.mark.usefixtures("logging_restored")
def test_json_line_has_the_peer_and_the_exception() -> None:
    stream, _ = configured("json")
    try:
        raise ValueError("bad\x1b[31m\nname")
    except ValueError:
        logging.getLogger("leveret.connection").exception(
            "internal error", extra={"peer": ("192.0.2.7", 40000)}
        )
    (line,) = stream.getvalue().splitlines()
    fields = json.loads(line)
    assert fields["level"] == "error"
    assert fields["logger"] == "leveret.connection"
    assert fields["message"] == "internal error"
    assert fields["peer"] == "192.0.2.7"
    assert "ValueError: bad\\x1b[31m" in fields["exception"]
    assert "\x1b" not in fields["exception"]


def test_traceback_lines_cannot_be_taken_for_log_lines() -> None:
    try:
        raise ValueError("x\n2026-01-01T00:00:00.000Z error   leveret: forged\x1b")
    except ValueError:
        made = logging.LogRecord("leveret", logging.ERROR, "x.py", 1, "broken", (), sys.exc_info())
    first, *rest = TextFormatter().format(made).split("\n")
    assert first.endswith("leveret: broken")
    assert any("forged" in line for line in rest)
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)


@pytest.mark.parametrize("formatter", [TextFormatter(), JSONFormatter()])
def test_password_of_a_url_is_not_logged(formatter: logging.Formatter) -> None:
    line = formatter.format(record("cannot reach %s", "amqp://alice:s3cret@10.0.0.1:5672/%2f"))
    assert "s3cret" not in line
    assert "amqp://alice:***@10.0.0.1:5672/%2f" in line


@pytest.mark.usefixtures("logging_restored")
def test_level_is_for_our_loggers_and_libraries_are_heard_from_warnings_on() -> None:
    stream, _ = configured(level="debug")
    logging.getLogger("leveret.queue").debug("ours")
    logging.getLogger("uvicorn.error").info("theirs")
    logging.getLogger("uvicorn.error").warning("their warning")
    text = stream.getvalue()
    assert "ours" in text
    assert "their warning" in text
    assert "theirs\n" not in text


def test_repeats_beyond_the_limit_become_one_line_when_the_interval_is_over() -> None:
    repeats, clock, emitted = repeat_filter(shown=2)
    passed = [repeats.filter(record("refused %s", f"user{n}")) for n in range(7)]
    assert passed == [True, True, False, False, False, False, False]
    assert emitted == []
    clock.now += 10
    assert repeats.filter(record("another line"))
    (summary,) = emitted
    assert summary.getMessage() == "refused user6 … repeated 5 times in 10 s"
    assert summary.name == "leveret.connection"
    assert summary.levelno == logging.INFO
    assert repeats.filter(record("refused %s", "user8"))


def test_repeats_are_counted_for_each_logger_template_and_address() -> None:
    repeats, _, _ = repeat_filter(shown=1)
    assert repeats.filter(record("refused", peer=("192.0.2.1", 1)))
    assert not repeats.filter(record("refused", peer=("192.0.2.1", 2)))
    assert repeats.filter(record("refused", peer=("192.0.2.2", 1)))
    assert repeats.filter(record("closed", peer=("192.0.2.1", 1)))
    other = record("refused", peer=("192.0.2.1", 1))
    other.name = "leveret.http"
    assert repeats.filter(other)


def test_errors_are_counted_too() -> None:
    repeats, _, _ = repeat_filter(shown=1)
    made = record("channel closed with an error")
    made.levelno = logging.ERROR
    assert [repeats.filter(made) for _ in range(3)] == [True, False, False]


def test_template_that_is_percent_signs_is_reported_as_it_is() -> None:
    repeats, _, emitted = repeat_filter(shown=1)
    for _ in range(2):
        repeats.filter(record("%s", "100% %s %d"))
    repeats.flush()
    assert emitted[0].getMessage() == "100% %s %d … repeated 1 times in 0 s"


def test_many_addresses_are_forgotten_oldest_first_and_reported() -> None:
    repeats, _, emitted = repeat_filter(shown=1, repeats_max=3)
    for _ in range(2):
        repeats.filter(record("refused", peer="192.0.2.1"))
    for n in range(50):
        repeats.filter(record("refused", peer=f"198.51.100.{n}"))
    assert [summary.getMessage() for summary in emitted] == ["refused … repeated 1 times in 0 s"]
    assert repeats.filter(record("refused", peer="192.0.2.1"))


@pytest.mark.usefixtures("logging_restored")
def test_what_was_held_back_is_told_at_the_end() -> None:
    stream, _ = configured()
    for n in range(150):
        logging.getLogger("leveret.connection").info("opened %d", n)
    assert len(stream.getvalue().splitlines()) == 100
    logging.getLogger().handlers[0].close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 101
    assert lines[-1].endswith("opened 149 … repeated 50 times in 0 s")
